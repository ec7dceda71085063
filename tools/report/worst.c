/* worst.c: worst.html, the pictures that the model gets most wrong. One file: style and pictures are in it. */
#include "tools/report/report.h"

#include <stdlib.h>
#include <string.h>

#define FV_WORST 50

static const char style[] =
    ":root{color-scheme:light dark;--bg:#fff;--card:#f5f6f8;--text:#1c2024;--soft:#667080;--bad:#c0392b;--good:#1e8449}"
    "@media(prefers-color-scheme:dark){:root{--bg:#14171a;--card:#1f2429;--text:#e8eaed;--soft:#9aa4b0;--bad:#ff7b6b;--"
    "good:#5fd38a}}"
    "body{margin:2rem auto;max-width:1180px;padding:0 1rem;background:var(--bg);color:var(--text);font:15px/1.45 "
    "system-ui,sans-serif}"
    "h1{font-size:1.35rem;margin:0 0 .2rem}p{margin:.2rem 0 1.4rem;color:var(--soft)}"
    "ol{list-style:none;margin:0;padding:0;display:grid;gap:14px;grid-template-columns:repeat(auto-fill,minmax(196px,"
    "1fr))}"
    "li{background:var(--card);border-radius:10px;padding:10px}"
    "img{width:100%;aspect-ratio:1;object-fit:contain;image-rendering:pixelated;border-radius:6px;background:#0001}"
    "dl{display:grid;grid-template-columns:auto 1fr;gap:0 .6rem;margin:.5rem 0 "
    "0}dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}"
    ".bad{color:var(--bad);font-weight:600}.good{color:var(--good);font-weight:600}small{color:var(--soft)}";

static int by_loss(const void *a, const void *b) {
    const fv_sample *x = *(const fv_sample *const *)a, *y = *(const fv_sample *const *)b;
    if (x->loss != y->loss) return x->loss < y->loss ? 1 : -1;
    return (x->index > y->index) - (x->index < y->index);
}

static fv_status write_picture(FILE *to, fv_ctx *ctx, const fv_evaluation *e, const fv_sample *s) {
    const fv_dataset *d = e->data;
    if (d->c != 1 && d->c != 3) return FV_OK; /* no picture that a page could show */
    void *png = NULL;
    size_t bytes = 0;
    const uint8_t *pixels = d->images + (size_t)s->index * (size_t)d->h * (size_t)d->w * (size_t)d->c;
    FV_TRY(fv_png_encode(ctx, pixels, d->h, d->w, d->c, &png, &bytes));
    fprintf(to, "<img alt=\"picture %lld\" width=\"%d\" height=\"%d\" src=\"data:image/png;base64,",
            (long long)s->index, d->w, d->h);
    fv_base64_write(to, png, bytes);
    fputs("\">", to);
    free(png);
    return FV_OK;
}

static void write_class(FILE *to, const fv_evaluation *e, const char *term, const char *css, int32_t k, double p) {
    char buf[32];
    fprintf(to, "<dt>%s</dt><dd class=\"%s\">", term, css);
    fv_text_html(to, fv_metrics_class_name(e->data, k, buf, sizeof buf));
    fprintf(to, " <small>%.1f%%</small></dd>", 100 * p);
}

static fv_status write_card(FILE *to, fv_ctx *ctx, const fv_evaluation *e, const fv_sample *s) {
    fputs("<li>", to);
    FV_TRY(write_picture(to, ctx, e, s));
    fputs("<dl>", to);
    write_class(to, e, "true", "good", s->label, s->p_label);
    write_class(to, e, "predicted", s->predicted == s->label ? "good" : "bad", s->predicted, s->p_predicted);
    fprintf(to, "<dt>loss</dt><dd>%.2f</dd><dt>index</dt><dd>%lld</dd></dl></li>\n", s->loss, (long long)s->index);
    return FV_OK;
}

static fv_status write_page(FILE *to, fv_ctx *ctx, const fv_evaluation *e, const char *title, const fv_sample **order) {
    int64_t shown = e->count < FV_WORST ? e->count : FV_WORST;
    fputs("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
          "content=\"width=device-width\">\n<title>",
          to);
    fv_text_html(to, title);
    fprintf(to, "</title>\n<style>%s</style></head>\n<body><h1>The %lld worst predictions</h1>\n<p>", style,
            (long long)shown);
    fv_text_html(to, title);
    fprintf(to,
            " · %lld pictures · top-1 %.2f%% · top-5 %.2f%% · loss %.4f. Largest loss first; percentages are the "
            "model's probabilities.</p>\n<ol>\n",
            (long long)e->count, 100 * e->top1, 100 * e->top5, e->loss);
    for (int64_t i = 0; i < shown; i++) FV_TRY(write_card(to, ctx, e, order[i]));
    fputs("</ol></body></html>\n", to);
    return FV_OK;
}

fv_status fv_report_worst(fv_ctx *ctx, const char *path, const fv_evaluation *e, const char *title) {
    const fv_sample **order = fv_alloc(ctx, (size_t)e->count + 1, sizeof *order);
    if (!order) return ctx->error.code;
    for (int64_t i = 0; i < e->count; i++) order[i] = &e->samples[i];
    qsort(order, (size_t)e->count, sizeof *order, by_loss);
    fv_text_file f;
    fv_status status = fv_text_file_open(&f, ctx);
    if (status == FV_OK) status = fv_text_file_close(&f, ctx, path, write_page(f.to, ctx, e, title, order));
    fv_free(ctx, order, (size_t)e->count + 1, sizeof *order);
    return status;
}
