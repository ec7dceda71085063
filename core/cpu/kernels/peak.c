/* peak.c: as many multiply-adds as the processor can do with this build's vectors, for the ceiling that
 * fv_cpu_ceilings measures. */
#include "core/cpu/cpu.h"
#include "core/cpu/kernels/vec.h"

#define CHAINS 12 /* independent sums: 2 units of latency 4 need 8; with two factors they fit into 16 registers */

void CPU(peak_tile)(void *arg, int64_t tile, int thread) {
    fv_peak *p = arg;
    vf sum[CHAINS], a = vf_set1(p->factor), b = vf_set1(p->factor * 0.5f);
    (void)thread;
    for (int k = 0; k < CHAINS; k++) sum[k] = vf_set1((float)k);
    for (int64_t i = 0; i < p->rounds; i++)
        for (int k = 0; k < CHAINS; k++) sum[k] = vf_fma(sum[k], a, b);
    vf all = sum[0];
    for (int k = 1; k < CHAINS; k++) all += sum[k];
    p->result[tile] = all[0];
}

double CPU(peak_flops)(void) {
    return 2.0 * CHAINS * FV_VL;
}
