/* whiten.c: whitening filters from the pictures themselves (Page 2018; Jordan 2024, arXiv:2404.00498). */
#include "layers/layers.h"

#include <math.h>
#include <string.h>

/* ---------------------------------------------------------------- eigenvalues */

#define MOST_SWEEPS 60 /* ten are the rule */

/* One rotation in the plane of p and q that makes a[p][q] zero (Golub & Van Loan, section 8.5). */
static void rotate(int n, double *a, double *v, int p, int q) {
    double apq = a[p * n + q];
    if (apq == 0) return;
    double theta = (a[q * n + q] - a[p * n + p]) / (2 * apq);
    double t = (theta < 0 ? -1 : 1) / (fabs(theta) + sqrt(theta * theta + 1)), c = 1 / sqrt(t * t + 1), s = t * c;
    for (int k = 0; k < n; k++) {
        double x = a[k * n + p], y = a[k * n + q];
        a[k * n + p] = c * x - s * y;
        a[k * n + q] = s * x + c * y;
    }
    for (int k = 0; k < n; k++) {
        double x = a[p * n + k], y = a[q * n + k], vx = v[p * n + k], vy = v[q * n + k];
        a[p * n + k] = c * x - s * y;
        a[q * n + k] = s * x + c * y;
        v[p * n + k] = c * vx - s * vy;
        v[q * n + k] = s * vx + c * vy;
    }
    a[p * n + q] = a[q * n + p] = 0; /* but for rounding it is */
}

static void swap_rows(int n, double *values, double *v, int i, int j) {
    double value = values[i];
    values[i] = values[j];
    values[j] = value;
    for (int k = 0; k < n; k++) {
        double x = v[i * n + k];
        v[i * n + k] = v[j * n + k];
        v[j * n + k] = x;
    }
}

static void fix_sign(int n, double *row) {
    int largest = 0;
    for (int k = 1; k < n; k++)
        if (fabs(row[k]) > fabs(row[largest])) largest = k;
    if (row[largest] > 0) return;
    for (int k = 0; k < n; k++) row[k] = -row[k];
}

void fv_symmetric_eigen(int n, double *a, double *values, double *vectors) {
    double *v = vectors, size = 0, off = 1;
    for (int i = 0; i < n; i++)
        for (int k = 0; k < n; k++) v[i * n + k] = i == k, size += a[i * n + k] * a[i * n + k];
    for (int sweep = 0; sweep < MOST_SWEEPS && off > 1e-32 * size; sweep++) {
        for (int p = 0; p < n; p++)
            for (int q = p + 1; q < n; q++) rotate(n, a, v, p, q);
        off = 0;
        for (int p = 0; p < n; p++)
            for (int q = p + 1; q < n; q++) off += a[p * n + q] * a[p * n + q];
    }
    for (int i = 0; i < n; i++) values[i] = a[i * n + i];
    for (int i = 0; i < n; i++) {
        int largest = i;
        for (int k = i + 1; k < n; k++)
            if (values[k] > values[largest]) largest = k;
        swap_rows(n, values, v, i, largest);
        fix_sign(n, v + (ptrdiff_t)i * n);
    }
}

/* ---------------------------------------------------------------- filters */

/* The patch of r x s pixels at (y, x) of a picture [h,w,c], as files have filters: [c][r][s]. */
static void take_patch(const float *picture, int64_t w, int64_t c, int64_t r, int64_t s, double *patch) {
    for (int64_t k = 0; k < c; k++)
        for (int64_t i = 0; i < r; i++)
            for (int64_t j = 0; j < s; j++) *patch++ = (double)picture[(i * w + j) * c + k];
}

/* Mean over all patches of patch' patch, [n,n]; n = r * s * c. */
static void covariance(const fv_pictures *p, int64_t r, int64_t s, double *patch, double *out) {
    int64_t n = r * s * p->c, rows = p->n * (p->h - r + 1) * (p->w - s + 1);
    memset(out, 0, (size_t)(n * n) * sizeof *out);
    for (int64_t picture = 0; picture < p->n; picture++)
        for (int64_t y = 0; y + r <= p->h; y++)
            for (int64_t x = 0; x + s <= p->w; x++) {
                take_patch(p->x + ((picture * p->h + y) * p->w + x) * p->c, p->w, p->c, r, s, patch);
                for (int64_t i = 0; i < n; i++)
                    for (int64_t k = 0; k < n; k++) out[i * n + k] += patch[i] * patch[k];
            }
    for (int64_t i = 0; i < n * n; i++) out[i] /= (double)rows;
}

static fv_status write_filters(fv_store *store, int32_t index, const double *filters, void *temp) {
    const fv_slot *slot = fv_store_slot(store, index);
    int64_t count = fv_count(slot->type);
    for (int64_t i = 0; i < count; i++)
        if (slot->type.dtype == FV_F64)
            ((double *)temp)[i] = (double)(float)filters[i]; /* the same in both precisions */
        else ((float *)temp)[i] = (float)filters[i];
    return fv_store_write(store, index, temp, fv_bytes(slot->type));
}

fv_status fv_whiten_init(fv_ctx *ctx, fv_store *store, const char *name, const fv_pictures *pictures, double eps) {
    int32_t index = fv_store_find(store, name);
    if (index < 0) return fv_fail(ctx, FV_E_INTERNAL, "whitening: there is no parameter '%s'", name);
    const int64_t *d = fv_store_slot(store, index)->type.dim; /* [k,r,s,c] */
    int64_t r = d[1], s = d[2], n = r * s * d[3];
    if (d[0] != 2 * n || d[3] != pictures->c || pictures->n < 1 || pictures->h < r || pictures->w < s)
        return fv_fail(ctx, FV_E_INTERNAL,
                       "whitening: '%s' has %lld filters of %lldx%lldx%lld; pictures: %lld of %lldx%lldx%lld", name,
                       (long long)d[0], (long long)r, (long long)s, (long long)d[3], (long long)pictures->n,
                       (long long)pictures->h, (long long)pictures->w, (long long)pictures->c);
    /* covariance and vectors [n,n] each, filters [2n,n] and room to convert them, values and patch [n] each */
    size_t places = (size_t)(6 * n * n + 2 * n);
    double *a = fv_alloc(ctx, places, sizeof *a);
    if (!a) return ctx->error.code;
    double *v = a + n * n, *filters = v + n * n, *temp = filters + 2 * n * n, *values = temp + 2 * n * n;
    covariance(pictures, r, s, values + n, a);
    fv_symmetric_eigen((int)n, a, values, v);
    for (int64_t i = 0; i < n * n; i++) {
        double value = values[i / n] > 0 ? values[i / n] : 0; /* below 0 by rounding only */
        filters[i] = v[i] / sqrt(value + eps);
        filters[n * n + i] = -filters[i];
    }
    fv_status status = write_filters(store, index, filters, temp);
    fv_free(ctx, a, places, sizeof *a);
    return status;
}
