/* worst.c: worst.html, the pictures that the model gets most wrong. One file: style and pictures are in it. */
#include "tools/report/report.h"

#include <stdlib.h>
#include <string.h>

#define FV_WORST 50 /* pictures */
#define FV_NAMED 3  /* labels of a kind and picture */

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

typedef struct page {
    FILE *to;
    fv_ctx *ctx;
    const fv_evaluation *e;
    fv_decoder *decoder; /* of pictures in files; NULL: they lie in memory */
    uint8_t *pixels;     /* [h,w,c] */
    size_t bytes;
} page;

/* ---------------------------------------------------------------- a picture */

/* A file that cannot be read any more leaves its place empty: the page is worth having without it. */
static fv_status write_picture(page *p, const fv_sample *s) {
    const fv_dataset *d = p->e->data;
    void *png = NULL;
    size_t bytes = 0;
    if (d->c > 4) return FV_OK; /* no picture that a page could show */
    fv_status status = fv_dataset_picture(d, p->decoder, s->index, p->pixels);
    if (status == FV_E_DATA || status == FV_E_IO) {
        fputs("<p>the picture could not be read</p>", p->to);
        return FV_OK;
    }
    FV_TRY(status);
    FV_TRY(fv_png_encode(p->ctx, p->pixels, d->h, d->w, d->c, &png, &bytes));
    fprintf(p->to, "<img alt=\"picture %lld\" width=\"%d\" height=\"%d\" src=\"data:image/png;base64,",
            (long long)s->index, d->w, d->h);
    fv_base64_write(p->to, png, bytes);
    fputs("\">", p->to);
    free(png);
    return FV_OK;
}

/* ---------------------------------------------------------------- what is said of it */

static void write_class(const page *p, const char *term, const char *css, int32_t k, double probability) {
    char buf[32];
    fprintf(p->to, "<dt>%s</dt><dd class=\"%s\">", term, css);
    fv_text_html(p->to, fv_metrics_class_name(p->e->data, k, buf, sizeof buf));
    fprintf(p->to, " <small>%.1f%%</small></dd>", 100 * probability);
}

static void write_one_label(const page *p, const fv_sample *s) {
    write_class(p, "true", "good", s->label, s->p_label);
    write_class(p, "predicted", s->correct ? "good" : "bad", s->predicted, s->p_predicted);
}

/* The labels of sample i that are (not) predicted as they should be: at most FV_NAMED, the surest mistake, or the
 * surest hit, first. `there`: whether the sample has them. */
static void write_labels(const page *p, int64_t i, const char *term, const char *css, bool there, bool predicted) {
    const fv_evaluation *e = p->e;
    double last = 2; /* above all probabilities */
    int32_t last_k = -1;
    for (int named = 0; named < FV_NAMED; named++) {
        int32_t best = -1;
        double best_p = -1;
        for (int32_t k = 0; k < e->classes; k++) {
            if (fv_multilabel_is(e, i, k) != there || (e->logits[i * e->classes + k] >= 0) != predicted) continue;
            double probability = fv_multilabel_probability(e, i, k), sure = predicted ? probability : 1 - probability;
            bool before = sure > last || (sure == last && k <= last_k); /* written already */
            if (!before && sure > best_p) best_p = sure, best = k;
        }
        if (best < 0) return;
        write_class(p, term, css, best, fv_multilabel_probability(e, i, best));
        last = best_p, last_k = best;
    }
}

static fv_status write_card(page *p, const fv_sample *s) {
    const fv_evaluation *e = p->e;
    const char *file = e->data->files ? fv_dataset_file(e->data, s->index) : NULL;
    int64_t i = s - e->samples;
    fputs("<li>", p->to);
    FV_TRY(write_picture(p, s));
    fputs("<dl>", p->to);
    if (e->multi_label) {
        write_labels(p, i, "missed", "bad", true, false);
        write_labels(p, i, "wrong", "bad", false, true);
        write_labels(p, i, "right", "good", true, true);
    } else write_one_label(p, s);
    fprintf(p->to, "<dt>loss</dt><dd>%.2f</dd><dt>index</dt><dd>%lld</dd>", s->loss, (long long)s->index);
    if (file) {
        fputs("<dt>file</dt><dd>", p->to);
        fv_text_html(p->to, file);
        fputs("</dd>", p->to);
    }
    fputs("</dl></li>\n", p->to);
    return FV_OK;
}

/* ---------------------------------------------------------------- the page */

static void write_figures(const page *p) {
    const fv_evaluation *e = p->e;
    fprintf(p->to, " · %lld pictures", (long long)e->count);
    if (e->multi_label)
        fprintf(p->to,
                " · mAP %.2f%% · micro F1 %.2f%% · exact %.2f%% · loss %.4f. Largest loss first; of each picture the "
                "surest mistakes, then the labels that are right; percentages are the model's probabilities.",
                100 * e->map, 100 * e->micro_f1, 100 * e->exact, e->loss);
    else
        fprintf(p->to,
                " · top-1 %.2f%% · top-5 %.2f%% · loss %.4f. Largest loss first; percentages are the model's "
                "probabilities.",
                100 * e->top1, 100 * e->top5, e->loss);
}

static fv_status write_page(page *p, const char *title, const fv_sample **order) {
    int64_t shown = p->e->count < FV_WORST ? p->e->count : FV_WORST;
    fputs("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
          "content=\"width=device-width\">\n<title>",
          p->to);
    fv_text_html(p->to, title);
    fprintf(p->to, "</title>\n<style>%s</style></head>\n<body><h1>The %lld worst predictions</h1>\n<p>", style,
            (long long)shown);
    fv_text_html(p->to, title);
    write_figures(p);
    fputs("</p>\n<ol>\n", p->to);
    for (int64_t i = 0; i < shown; i++) FV_TRY(write_card(p, order[i]));
    fputs("</ol></body></html>\n", p->to);
    return FV_OK;
}

static fv_status write_file(page *p, const char *path, const char *title, const fv_sample **order) {
    fv_text_file f;
    const fv_dataset *d = p->e->data;
    p->bytes = (size_t)d->h * (size_t)d->w * (size_t)d->c;
    if (!(p->pixels = fv_alloc(p->ctx, p->bytes, 1))) return p->ctx->error.code;
    if (d->files) FV_TRY(fv_decoder_create(p->ctx, &p->decoder));
    FV_TRY(fv_text_file_open(&f, p->ctx));
    p->to = f.to;
    return fv_text_file_close(&f, p->ctx, path, write_page(p, title, order));
}

fv_status fv_report_worst(fv_ctx *ctx, const char *path, const fv_evaluation *e, const char *title) {
    page p = {.ctx = ctx, .e = e};
    const fv_sample **order = fv_alloc(ctx, (size_t)e->count + 1, sizeof *order);
    if (!order) return ctx->error.code;
    for (int64_t i = 0; i < e->count; i++) order[i] = &e->samples[i];
    qsort(order, (size_t)e->count, sizeof *order, by_loss);
    fv_status status = write_file(&p, path, title, order);
    fv_decoder_destroy(p.decoder);
    if (p.pixels) fv_free(ctx, p.pixels, p.bytes, 1);
    fv_free(ctx, order, (size_t)e->count + 1, sizeof *order);
    return status;
}
