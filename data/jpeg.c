/* jpeg.c: JPEG files through libjpeg-turbo's own interface. One decompressor serves all pictures of a decoder; what one
 * file defines (tables, markers) is forgotten before the next. */
#include "data/image.h"
#include "data/jpeg_memory.h"

#include <jerror.h>
#include <setjmp.h>
#include <string.h>

#define MOST_SCANS 500                  /* of any picture; of large ones less: */
#define MOST_SCANNED ((int64_t)8 << 30) /* pixels times scans */
#define LEAST_SCANS 64                  /* ... but so many are always read */
#define MOST_PADDING 32                 /* bytes that may stand between the last row and the end marker */
/* Rows that lie on whole registers the library writes around the cache, which is slower, and then they are read again.
 */
#define OFF_STREAMING ((size_t)16)
#define EXIF_MARKER (JPEG_APP0 + 1)
#define WORK_BYTES ((size_t)8 << 20) /* the library's tables and row buffers, together with ... */
#define WORK_BYTES_PER_COLUMN ((size_t)1 << 10)

typedef enum phase { IN_HEADER, IN_SCANS, IN_ROWS, BEHIND_ROWS } phase;

struct fv_jpeg {
    struct jpeg_decompress_struct info;
    struct jpeg_error_mgr errors;
    struct jpeg_source_mgr source;
    struct jpeg_progress_mgr progress;
    struct jpeg_memory_mgr *library_memory; /* what it made for itself */
    fv_jpeg_memory memory;
    fv_image_memory rows; /* where each row goes */
    fv_ctx *ctx;
    const fv_image_file *file;
    phase phase;
    fv_status status;
    jmp_buf jump;
    /* of the call */
    int32_t min_h, min_w;
    fv_image_memory *to;
    fv_stored_image *stored;
};

/* ---------------------------------------------------------------- errors */

/* Record what is wrong, and where. Does not return. */
static _Noreturn void refuse(fv_jpeg *j, int64_t offset, const char *what) {
    const char *name = j->file->name;
    const struct jpeg_decompress_struct *info = &j->info;
    unsigned row = 0;
    if (j->phase == IN_SCANS) row = info->input_iMCU_row * (unsigned)info->max_v_samp_factor * DCTSIZE;
    else if (j->phase == IN_ROWS) row = info->output_scanline;
    switch (j->phase) {
    case IN_HEADER: j->status = fv_fail_at(j->ctx, FV_E_DATA, name, offset, "%s in its header", what); break;
    case IN_SCANS:
        j->status = fv_fail_at(j->ctx, FV_E_DATA, name, offset, "%s at row %u of %u, scan %d", what, row,
                               info->image_height, info->input_scan_number);
        break;
    case IN_ROWS:
        j->status = fv_fail_at(j->ctx, FV_E_DATA, name, offset, "%s at row %u of %u", what, row, info->output_height);
        break;
    case BEHIND_ROWS:
        j->status =
            fv_fail_at(j->ctx, FV_E_DATA, name, offset, "%s behind row %u, the last", what, info->output_height);
        break;
    }
    longjmp(j->jump, 1);
}

static int64_t offset_of(const fv_jpeg *j) { /* about: the library reads ahead */
    return (int64_t)(j->file->bytes - j->source.bytes_in_buffer);
}

static void on_error(j_common_ptr info) {
    fv_jpeg *j = info->client_data;
    char text[JMSG_LENGTH_MAX];
    if (j->memory.out_of_memory) {
        j->status = FV_E_MEMORY; /* the allocator has said so */
        longjmp(j->jump, 1);
    }
    if (!j->file) { /* the decompressor itself is being made */
        bool full = info->err->msg_code == JERR_OUT_OF_MEMORY;
        info->err->format_message(info, text);
        j->status = fv_fail(j->ctx, full ? FV_E_MEMORY : FV_E_INTERNAL, "libjpeg: %s", text);
        longjmp(j->jump, 1);
    }
    if (info->err->msg_code == JERR_OUT_OF_MEMORY)
        refuse(j, -1, "JPEG that asks for more memory than its size can need");
    info->err->format_message(info, text);
    char what[JMSG_LENGTH_MAX + 32];
    snprintf(what, sizeof what, "damaged JPEG: %s", text);
    refuse(j, offset_of(j), what);
}

/* Whatever the library would paper over is an error, but for what cannot touch the pixels. */
static void on_message(j_common_ptr info, int level) {
    const fv_jpeg *j = info->client_data;
    if (level >= 0) return; /* trace */
    switch (info->err->msg_code) {
    case JWRN_JFIF_MAJOR: /* revision of a header that is not used */
    case JWRN_ADOBE_XFORM: /* an unknown transform counts as the usual one */ return;
    case JWRN_EXTRANEOUS_DATA: /* some cameras pad; more is a sign that the decoder lost its place */
        if (j->phase == BEHIND_ROWS && info->err->msg_parm.i[0] <= MOST_PADDING) return;
        break;
    default: break;
    }
    on_error(info);
}

static void no_output(j_common_ptr info) {
    (void)info;
}

/* ---------------------------------------------------------------- input: the whole file lies in memory */

static void source_begin(j_decompress_ptr info) {
    (void)info;
}

static boolean source_more(j_decompress_ptr info) {
    fv_jpeg *j = info->client_data;
    refuse(j, (int64_t)j->file->bytes, "truncated JPEG");
}

static void source_skip(j_decompress_ptr info, long bytes) {
    struct jpeg_source_mgr *s = info->src;
    if (bytes <= 0) return;
    if ((size_t)bytes > s->bytes_in_buffer) source_more(info);
    s->next_input_byte += bytes;
    s->bytes_in_buffer -= (size_t)bytes;
}

/* Scans that add next to nothing cost as much time as any other. */
static void on_progress(j_common_ptr common) {
    fv_jpeg *j = common->client_data;
    int64_t most = MOST_SCANNED / ((int64_t)j->info.image_width * j->info.image_height);
    most = most < LEAST_SCANS ? LEAST_SCANS : most > MOST_SCANS ? MOST_SCANS : most;
    if (j->info.input_scan_number > most) refuse(j, offset_of(j), "JPEG of too many scans");
}

/* ---------------------------------------------------------------- making and ending */

static fv_status make(fv_jpeg *j) {
    struct jpeg_decompress_struct *info = &j->info;
    info->err = jpeg_std_error(&j->errors);
    j->errors.error_exit = on_error;
    j->errors.emit_message = on_message;
    j->errors.output_message = no_output;
    info->client_data = j;
    if (setjmp(j->jump)) return j->status;
    jpeg_create_decompress(info);
    j->library_memory = info->mem;
    jpeg_save_markers(info, EXIF_MARKER, 0xffff);
    fv_jpeg_memory_init(&j->memory, j->ctx);
    info->mem = &j->memory.methods;
    j->source = (struct jpeg_source_mgr){.init_source = source_begin,
                                         .fill_input_buffer = source_more,
                                         .skip_input_data = source_skip,
                                         .resync_to_restart = jpeg_resync_to_restart,
                                         .term_source = source_begin};
    info->src = &j->source;
    j->progress.progress_monitor = on_progress;
    return FV_OK;
}

fv_status fv_jpeg_create(fv_ctx *ctx, fv_jpeg **out) {
    *out = NULL;
    fv_jpeg *j = fv_calloc(ctx, 1, sizeof *j);
    if (!j) return FV_E_MEMORY;
    j->ctx = ctx;
    fv_status status = make(j);
    if (status == FV_OK) *out = j;
    else fv_jpeg_destroy(j);
    return status;
}

void fv_jpeg_destroy(fv_jpeg *j) {
    if (!j) return;
    if (j->library_memory) j->info.mem = j->library_memory;
    jpeg_destroy_decompress(&j->info); /* fine when it could not be made */
    fv_jpeg_memory_free(&j->memory);
    fv_image_release(j->ctx, &j->rows);
    fv_free(j->ctx, j, 1, sizeof *j);
}

/* ---------------------------------------------------------------- header */

/* Nothing of the last picture may be seen by this one: what a file should define, and does not, is an error. */
static void begin(fv_jpeg *j) {
    struct jpeg_decompress_struct *info = &j->info;
    jpeg_abort_decompress(info);
    fv_jpeg_memory_reset(&j->memory, j->file->bytes + WORK_BYTES);
    for (int i = 0; i < NUM_QUANT_TBLS; i++) info->quant_tbl_ptrs[i] = NULL;
    for (int i = 0; i < NUM_HUFF_TBLS; i++) info->dc_huff_tbl_ptrs[i] = info->ac_huff_tbl_ptrs[i] = NULL;
    info->err->reset_error_mgr((j_common_ptr)info);
    j->source.next_input_byte = j->file->data;
    j->source.bytes_in_buffer = j->file->bytes;
    j->phase = IN_HEADER;
}

/* A Huffman-coded block takes a bit at least. Of a file too short for its size most would be missing: no memory for it.
 */
static void check_length(fv_jpeg *j, int64_t blocks) {
    if (j->info.arith_code || blocks / 8 <= (int64_t)j->file->bytes) return;
    char what[96];
    snprintf(what, sizeof what, "truncated JPEG: %zu bytes are too few for %u x %u pixels, as given", j->file->bytes,
             j->info.image_width, j->info.image_height);
    refuse(j, (int64_t)j->file->bytes, what);
}

static int32_t orientation_of(const fv_jpeg *j) {
    for (jpeg_saved_marker_ptr m = j->info.marker_list; m; m = m->next)
        if (m->marker == EXIF_MARKER && m->data_length >= 6 && !memcmp(m->data, "Exif\0\0", 6))
            return fv_exif_orientation(m->data, m->data_length);
    return 1;
}

static int64_t up_to(int64_t n, int unit) { /* the next multiple */
    return (n + unit - 1) / unit * unit;
}

static fv_status read_header(fv_jpeg *j) {
    struct jpeg_decompress_struct *info = &j->info;
    begin(j);
    jpeg_read_header(info, TRUE);
    FV_TRY(fv_image_check_size(j->ctx, j->file, info->image_height, info->image_width));
    int c = info->num_components;
    if (info->data_precision != 8 || (c != 1 && c != 3 && c != 4)) {
        fv_fail_at(j->ctx, FV_E_DATA, j->file->name, -1,
                   "a JPEG of %d components of %d bits; 1, 3 or 4 of 8 bits can be read", c, info->data_precision);
        return fv_hint(j->ctx, "convert it to an ordinary JPEG or PNG, or leave it out");
    }
    int64_t blocks = 0, padded = 0; /* ... to whole units of interleaved scans, as coefficients are kept */
    for (int i = 0; i < c; i++) {
        const jpeg_component_info *p = &info->comp_info[i];
        blocks += (int64_t)p->width_in_blocks * p->height_in_blocks;
        padded += up_to(p->width_in_blocks, p->h_samp_factor) * up_to(p->height_in_blocks, p->v_samp_factor);
    }
    check_length(j, blocks);
    j->memory.limit += (size_t)info->image_width * WORK_BYTES_PER_COLUMN;
    if (jpeg_has_multiple_scans(info)) j->memory.limit += sizeof(JBLOCK) * (size_t)padded;
    *j->stored = (fv_stored_image){
        .h = (int32_t)info->image_height, .w = (int32_t)info->image_width, .c = c, .orientation = orientation_of(j)};
    return FV_OK;
}

/* ---------------------------------------------------------------- pixels */

/* The smallest of 1/8, 1/4, 1/2 and 1 that still has the size asked for: those have vector code. */
static void choose_scale(fv_jpeg *j) {
    struct jpeg_decompress_struct *info = &j->info;
    bool side = j->stored->orientation >= 5;
    int32_t min_h = side ? j->min_w : j->min_h, min_w = side ? j->min_h : j->min_w;
    info->scale_denom = 8;
    info->scale_num = min_h > 0 || min_w > 0 ? 1 : 8;
    for (; info->scale_num < 8; info->scale_num *= 2) {
        jpeg_calc_output_dimensions(info);
        if ((int64_t)info->output_height >= min_h && (int64_t)info->output_width >= min_w) break;
    }
    jpeg_calc_output_dimensions(info);
}

static fv_status place_rows(fv_jpeg *j, int32_t h, size_t stride) {
    FV_TRY(fv_image_reserve(j->ctx, j->to, (size_t)h * stride + OFF_STREAMING));
    FV_TRY(fv_image_reserve(j->ctx, &j->rows, (size_t)h * sizeof(JSAMPROW)));
    JSAMPROW *row = j->rows.data;
    j->stored->pixels = (uint8_t *)j->to->data + OFF_STREAMING;
    for (int32_t y = 0; y < h; y++) row[y] = j->stored->pixels + (size_t)y * stride;
    return FV_OK;
}

/* a * b / 255, rounded, for bytes */
static int scaled(int a, int b) {
    int t = a * b + 128;
    return (t + (t >> 8)) >> 8;
}

/* In place: [pixels,4] to [pixels,3]. Inks are stored inverted, as Adobe does it and every reader has come to expect.
 */
static void cmyk_to_rgb(uint8_t *data, size_t pixels) {
    for (size_t i = 0; i < pixels; i++) {
        const uint8_t *p = data + 4 * i;
        uint8_t rgb[3];
        for (int k = 0; k < 3; k++) rgb[k] = (uint8_t)(p[3] - scaled(255 - p[k], p[3]));
        memcpy(data + 3 * i, rgb, 3);
    }
}

static fv_status read_pixels(fv_jpeg *j) {
    struct jpeg_decompress_struct *info = &j->info;
    FV_TRY(read_header(j));
    fv_stored_image *s = j->stored;
    info->out_color_space = s->c == 1 ? JCS_GRAYSCALE : s->c == 3 ? JCS_RGB : JCS_CMYK;
    choose_scale(j);
    s->h = (int32_t)info->output_height;
    s->w = (int32_t)info->output_width;
    FV_TRY(place_rows(j, s->h, (size_t)s->w * (size_t)s->c));
    const bool scans = jpeg_has_multiple_scans(info);
    j->phase = scans ? IN_SCANS : IN_ROWS;
    info->progress = scans ? &j->progress : NULL;
    jpeg_start_decompress(info);
    j->phase = IN_ROWS;
    for (JDIMENSION y; (y = info->output_scanline) < info->output_height;)
        jpeg_read_scanlines(info, (JSAMPROW *)j->rows.data + y, info->output_height - y);
    j->phase = BEHIND_ROWS;
    jpeg_finish_decompress(info);
    if (s->c == 4) {
        cmyk_to_rgb(s->pixels, (size_t)s->h * (size_t)s->w);
        s->c = 3;
    }
    return FV_OK;
}

/* ---------------------------------------------------------------- what image.c calls */

/* The library leaves its calls by longjmp; no frame between here and there owns anything. */
static fv_status run(fv_jpeg *j, fv_status (*body)(fv_jpeg *j)) {
    if (setjmp(j->jump)) return j->status;
    return body(j);
}

fv_status fv_jpeg_probe(fv_jpeg *j, const fv_image_file *file, fv_stored_image *stored) {
    j->file = file;
    j->stored = stored;
    return run(j, read_header);
}

fv_status fv_jpeg_decode(fv_jpeg *j, const fv_image_file *file, int32_t min_h, int32_t min_w, fv_image_memory *to,
                         fv_stored_image *stored) {
    j->file = file;
    j->stored = stored;
    j->min_h = min_h;
    j->min_w = min_w;
    j->to = to;
    return run(j, read_pixels);
}
