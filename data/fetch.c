/* fetch.c: one file over HTTP, by libcurl, which is opened when it is first needed: the program neither links it nor
 * pays for it otherwise.
 *
 *   PATH.part grows ─► complete ─► checksum ─► fsync, rename to PATH, fsync of the folder
 *
 * What was cut short is continued, by the next request or the next run. A mirror is left on errors, on wrong contents
 * and on a low rate; if nothing else worked, the fastest of the slow ones is asked again with all patience. */
#include "data/internal.h"

#include <curl/curl.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <unistd.h>

#define MOST_BYTES ((int64_t)8 << 30) /* of a file whose size is not published */
#define MOST_REQUESTS 5               /* to one mirror, of which none brings ... */
#define PROGRESS_BYTES ((int64_t)1 << 20)
#define CONNECT_SECONDS 20L
/* Above the 55-85 kB/s of a throttled host (get.c), below what any other place serves. */
#define LOW_SPEED_BYTES 128000L
#define LOW_SPEED_SECONDS 15L

/* ---------------------------------------------------------------- libcurl */

typedef struct curl_api {
    void *library;
    CURLcode (*global_init)(long flags);
    void (*global_cleanup)(void);
    CURL *(*easy_init)(void);
    CURLcode (*easy_setopt)(CURL *curl, CURLoption option, ...);
    CURLcode (*easy_perform)(CURL *curl);
    CURLcode (*easy_getinfo)(CURL *curl, CURLINFO info, ...);
    void (*easy_cleanup)(CURL *curl);
    const char *(*easy_strerror)(CURLcode code);
} curl_api;

static const struct {
    const char *symbol;
    size_t place;
} curl_symbols[] = {
    {"curl_global_init", offsetof(curl_api, global_init)},
    {"curl_global_cleanup", offsetof(curl_api, global_cleanup)},
    {"curl_easy_init", offsetof(curl_api, easy_init)},
    {"curl_easy_setopt", offsetof(curl_api, easy_setopt)},
    {"curl_easy_perform", offsetof(curl_api, easy_perform)},
    {"curl_easy_getinfo", offsetof(curl_api, easy_getinfo)},
    {"curl_easy_cleanup", offsetof(curl_api, easy_cleanup)},
    {"curl_easy_strerror", offsetof(curl_api, easy_strerror)},
};

/* RTLD_NODELETE: TLS libraries do not survive being unloaded. */
static fv_status curl_load(fv_ctx *ctx, curl_api *api) {
    static const char *const names[] = {"libcurl.so.4", "libcurl-gnutls.so.4"};
    memset(api, 0, sizeof *api);
    for (size_t i = 0; i < sizeof names / sizeof *names && !api->library; i++)
        api->library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!api->library) {
        fv_fail(ctx, FV_E_IO, "downloads need libcurl, and libcurl.so.4 cannot be opened: %s", dlerror());
        return fv_hint(ctx, "install it (Debian, Ubuntu: apt-get install libcurl4), or fetch the file by other means");
    }
    for (size_t i = 0; i < sizeof curl_symbols / sizeof *curl_symbols; i++) {
        void *symbol = dlsym(api->library, curl_symbols[i].symbol);
        if (!symbol) {
            dlclose(api->library);
            return fv_fail(ctx, FV_E_IO, "this libcurl has no %s", curl_symbols[i].symbol);
        }
        memcpy((char *)api + curl_symbols[i].place, &symbol, sizeof symbol);
    }
    CURLcode code = api->global_init(CURL_GLOBAL_DEFAULT);
    if (code == CURLE_OK) return FV_OK;
    dlclose(api->library);
    return fv_fail(ctx, FV_E_IO, "libcurl cannot be used: %s", api->easy_strerror(code));
}

static void curl_unload(curl_api *api) {
    /* NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage): curl_load has set it, by its place in the struct */
    api->global_cleanup();
    dlclose(api->library);
}

/* ---------------------------------------------------------------- the incomplete file */

typedef struct transfer {
    fv_ctx *ctx;
    const curl_api *curl;
    const fv_get_opts *opts;
    const fv_fetch_choice *choice;
    CURL *handle;
    char part[FV_DATA_PATH];
    int fd;
    int64_t start, at, total; /* bytes in the file before this request, now, and in the end (0: unknown) */
    int64_t range_start;      /* of the reply's Content-Range; -1: none */
    bool begun;               /* the first bytes of the reply have come */
    fv_status failed;         /* the disk's fault: no other mirror can help */
    char reason[160];         /* why this mirror is left */
    double rate;              /* bytes per second that it served */
} transfer;

static fv_status part_fail(transfer *t, const char *what, int error) {
    fv_fail_at(t->ctx, FV_E_IO, t->part, t->at, "cannot %s: %s", what, strerror(error));
    if (error == ENOSPC || error == EDQUOT) fv_hint(t->ctx, "free some space and call it again: it goes on from here");
    return t->failed = t->ctx->error.code;
}

static fv_status part_truncate(transfer *t) {
    if (ftruncate(t->fd, 0) != 0) return part_fail(t, "truncate", errno);
    t->at = 0;
    return FV_OK;
}

static void part_close(transfer *t) {
    if (t->fd >= 0) t->ctx->io.close(t->ctx->io.user, t->fd);
    t->fd = -1;
}

/* The lock lets a second program that wants the same file say so, instead of mixing its bytes in. */
static fv_status part_open(transfer *t) {
    FV_TRY(fv_data_path(t->ctx, t->part, "%s.part", t->choice->path));
    t->at = 0;
    t->fd = t->ctx->io.open(t->ctx->io.user, t->part, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK,
                            0666);
    if (t->fd < 0) return part_fail(t, "create", errno);
    int64_t size = t->ctx->io.size(t->ctx->io.user, t->fd);
    if (size < 0) return part_fail(t, "get the size", errno);
    if (flock(t->fd, LOCK_EX | LOCK_NB) != 0) {
        bool taken = errno == EWOULDBLOCK;
        part_fail(t, "lock", errno);
        part_close(t);
        return taken ? fv_fail_at(t->ctx, FV_E_IO, t->part, -1, "another program is fetching this file") : t->failed;
    }
    t->at = size;
    if (t->choice->bytes > 0 && size > t->choice->bytes) return part_truncate(t);
    return FV_OK;
}

static fv_status part_write(transfer *t, const char *data, size_t bytes) {
    while (bytes > 0) {
        int64_t n = t->ctx->io.write(t->ctx->io.user, t->fd, data, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return part_fail(t, "write", n < 0 ? errno : EIO);
        data += n;
        bytes -= (size_t)n;
        t->at += n;
    }
    return FV_OK;
}

/* The checksum has been seen to hold. */
static fv_status part_commit(transfer *t) {
    char folder[FV_DATA_PATH];
    if (t->ctx->io.fsync(t->ctx->io.user, t->fd) != 0) return part_fail(t, "sync", errno);
    int fd = t->fd;
    t->fd = -1;
    if (t->ctx->io.close(t->ctx->io.user, fd) != 0) return part_fail(t, "close", errno);
    if (t->ctx->io.rename(t->ctx->io.user, t->part, t->choice->path) != 0) return part_fail(t, "rename", errno);
    t->failed = fv_data_parent(t->ctx, t->choice->path, folder);
    if (t->failed == FV_OK) t->failed = fv_data_sync_folder(t->ctx, folder);
    return t->failed;
}

/* ---------------------------------------------------------------- one request */

static size_t on_header(char *line, size_t size, size_t count, void *user) {
    transfer *t = user;
    static const char field[] = "Content-Range: bytes ";
    size_t bytes = size * count;
    char text[128];
    if (bytes >= sizeof field && bytes < sizeof text && strncasecmp(line, field, sizeof field - 1) == 0) {
        memcpy(text, line, bytes);
        text[bytes] = 0;
        t->range_start = strtoll(text + sizeof field - 1, NULL, 10);
    } else if (bytes > 5 && strncmp(line, "HTTP/", 5) == 0) {
        t->range_start = -1; /* of a reply that only redirected */
    }
    return bytes;
}

/* Before the first byte: a server that knows no ranges sends all of the file; one that offers another size has another
 * file. */
static bool accept_reply(transfer *t) {
    long code = 0;
    curl_off_t length = -1;
    t->curl->easy_getinfo(t->handle, CURLINFO_RESPONSE_CODE, &code);
    t->curl->easy_getinfo(t->handle, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    bool continued = code == 206;
    if (continued && t->range_start != t->start) {
        snprintf(t->reason, sizeof t->reason, "it sent another range than was asked for");
        return false;
    }
    t->total = length > 0 ? (int64_t)length + (continued ? t->start : 0) : t->choice->bytes;
    if (t->choice->bytes > 0 && t->total != t->choice->bytes) {
        snprintf(t->reason, sizeof t->reason, "it offers %lld bytes, the published file has %lld", (long long)t->total,
                 (long long)t->choice->bytes);
        return false;
    }
    return continued || t->at == 0 || part_truncate(t) == FV_OK;
}

static size_t on_data(char *data, size_t size, size_t count, void *user) {
    transfer *t = user;
    size_t bytes = size * count;
    if (!t->begun && !accept_reply(t)) return 0;
    t->begun = true;
    int64_t most = t->choice->bytes > 0 ? t->choice->bytes : MOST_BYTES;
    if ((int64_t)bytes > most - t->at) {
        snprintf(t->reason, sizeof t->reason, "it sends more than the %lld bytes of the file", (long long)most);
        return 0;
    }
    return part_write(t, data, bytes) == FV_OK ? bytes : 0;
}

static int on_progress(void *user, curl_off_t total, curl_off_t now, curl_off_t up_total, curl_off_t up) {
    transfer *t = user;
    (void)total, (void)now, (void)up_total, (void)up;
    if (t->opts->progress && t->begun)
        t->opts->progress(t->opts->user, t->choice->name, t->choice->url, t->at, t->total);
    return 0;
}

static bool set_options(transfer *t, bool patient) {
    CURL *h = t->handle;
    CURLcode (*set)(CURL *, CURLoption, ...) = t->curl->easy_setopt;
    long low = t->opts->low_speed_bytes > 0 ? t->opts->low_speed_bytes : LOW_SPEED_BYTES;
    long seconds = t->opts->low_speed_seconds > 0 ? t->opts->low_speed_seconds : LOW_SPEED_SECONDS;
    char range[32];
    bool ok = set(h, CURLOPT_URL, t->choice->url) == CURLE_OK;
    ok &= set(h, CURLOPT_USERAGENT, "fovea/" FV_VERSION) == CURLE_OK;
#if LIBCURL_VERSION_NUM >= 0x075500
    ok &= set(h, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK;
    ok &= set(h, CURLOPT_REDIR_PROTOCOLS_STR, "http,https") == CURLE_OK;
#else
    ok &= set(h, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS)) == CURLE_OK;
    ok &= set(h, CURLOPT_REDIR_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS)) == CURLE_OK;
#endif
    ok &= set(h, CURLOPT_FOLLOWLOCATION, 1L) == CURLE_OK;
    ok &= set(h, CURLOPT_MAXREDIRS, 8L) == CURLE_OK;
    ok &= set(h, CURLOPT_FAILONERROR, 1L) == CURLE_OK;
    ok &= set(h, CURLOPT_NOSIGNAL, 1L) == CURLE_OK;
    ok &= set(h, CURLOPT_CONNECTTIMEOUT, CONNECT_SECONDS) == CURLE_OK;
    /* even with patience a connection that carries nothing at all for a minute is dead */
    ok &= set(h, CURLOPT_LOW_SPEED_LIMIT, patient ? 1L : low) == CURLE_OK;
    ok &= set(h, CURLOPT_LOW_SPEED_TIME, patient ? 60L : seconds) == CURLE_OK;
    ok &= set(h, CURLOPT_HEADERFUNCTION, on_header) == CURLE_OK && set(h, CURLOPT_HEADERDATA, t) == CURLE_OK;
    ok &= set(h, CURLOPT_WRITEFUNCTION, on_data) == CURLE_OK && set(h, CURLOPT_WRITEDATA, t) == CURLE_OK;
    ok &= set(h, CURLOPT_XFERINFOFUNCTION, on_progress) == CURLE_OK && set(h, CURLOPT_XFERINFODATA, t) == CURLE_OK;
    ok &= set(h, CURLOPT_NOPROGRESS, 0L) == CURLE_OK;
    snprintf(range, sizeof range, "%lld-", (long long)t->start);
    return ok && (t->start == 0 || set(h, CURLOPT_RANGE, range) == CURLE_OK);
}

typedef enum outcome {
    COMPLETE,  /* the reply has ended as it should */
    CUT_SHORT, /* it broke off: go on from there */
    SLOW,
    AT_END,  /* there is nothing after what we have */
    USELESS, /* an error; see reason */
    BROKEN,  /* t->failed */
} outcome;

static outcome judge(transfer *t, CURLcode code) {
    long http = 0;
    curl_off_t rate = 0;
    t->curl->easy_getinfo(t->handle, CURLINFO_RESPONSE_CODE, &http);
    t->curl->easy_getinfo(t->handle, CURLINFO_SPEED_DOWNLOAD_T, &rate);
    t->rate = (double)rate;
    if (t->failed != FV_OK) return BROKEN;
    if (t->reason[0]) return USELESS;
    if (code == CURLE_OK) {
        if (t->begun || t->choice->bytes == 0) return COMPLETE;
        snprintf(t->reason, sizeof t->reason, "it sent nothing");
        return USELESS;
    }
    if (code == CURLE_HTTP_RETURNED_ERROR) {
        if (http == 416 && t->start > 0) return AT_END;
        snprintf(t->reason, sizeof t->reason, "HTTP status %ld", http);
        return USELESS;
    }
    snprintf(t->reason, sizeof t->reason, "%s", t->curl->easy_strerror(code));
    if (code == CURLE_OPERATION_TIMEDOUT && t->begun) {
        snprintf(t->reason, sizeof t->reason, "only %.0f kB/s", t->rate / 1000.0);
        return SLOW;
    }
    return t->at > t->start ? CUT_SHORT : USELESS;
}

static outcome request(transfer *t, bool patient) {
    t->handle = t->curl->easy_init();
    t->start = t->at;
    t->range_start = -1;
    t->begun = false;
    t->reason[0] = 0;
    t->total = t->choice->bytes;
    if (!t->handle || !set_options(t, patient)) {
        if (t->handle) t->curl->easy_cleanup(t->handle);
        t->failed = fv_fail(t->ctx, FV_E_IO, "libcurl refuses to be set up");
        return BROKEN;
    }
    outcome result = judge(t, t->curl->easy_perform(t->handle));
    t->curl->easy_cleanup(t->handle);
    return result;
}

/* ---------------------------------------------------------------- one mirror */

/* *done when the file is complete and has the published checksum. */
static fv_status verify(transfer *t, bool *done) {
    char md5[33];
    *done = false;
    t->failed = fv_md5_file(t->ctx, t->part, md5);
    FV_TRY(t->failed);
    if (strcmp(md5, t->choice->md5) == 0) {
        *done = true;
        return part_commit(t);
    }
    snprintf(t->reason, sizeof t->reason, "wrong contents (MD5 %s, published %s)", md5, t->choice->md5);
    return part_truncate(t);
}

/* FV_OK with *done, or why this mirror is left in t->reason; an error only when no other mirror could help. */
static fv_status try_choice(transfer *t, bool patient, bool *slow, bool *done) {
    *slow = *done = false;
    for (int i = 0; i < MOST_REQUESTS && !*slow; i++) {
        outcome result = request(t, patient);
        bool continued = t->start > 0; /* a wrong beginning may be another mirror's: once more from the start */
        switch (result) {
        case BROKEN: return t->failed;
        case USELESS: return FV_OK;
        case SLOW: *slow = true; break;
        case CUT_SHORT: i = t->at - t->start >= PROGRESS_BYTES ? 0 : i; break;
        case COMPLETE:
        case AT_END:
            FV_TRY(verify(t, done));
            if (*done || !continued) return FV_OK;
            break;
        }
    }
    return FV_OK;
}

static fv_status open_and_try(transfer *t, const fv_fetch_choice *choice, bool patient, bool *slow, bool *done) {
    t->choice = choice;
    t->failed = FV_OK;
    t->rate = 0.0;
    *slow = *done = false;
    fv_status status = part_open(t);
    if (status == FV_OK && choice->bytes > 0 && t->at == choice->bytes) status = verify(t, done); /* all but renamed */
    if (status == FV_OK && !*done) status = try_choice(t, patient, slow, done);
    if (t->fd >= 0 && t->at == 0) t->ctx->io.unlink(t->ctx->io.user, t->part);
    part_close(t);
    return status;
}

/* ---------------------------------------------------------------- all mirrors */

static fv_status try_all(fv_ctx *ctx, const curl_api *api, const fv_fetch_choice *choices, int n,
                         const fv_get_opts *opts, int *which) {
    transfer t = {.ctx = ctx, .curl = api, .opts = opts, .fd = -1};
    char reasons[600] = "";
    double best_rate = -1.0;
    int best = -1;
    for (int i = 0; i <= n; i++) { /* the last round: the fastest of the slow ones, with patience */
        bool slow, done, patient = i == n;
        if (patient && best < 0) break;
        int now = patient ? best : i;
        FV_TRY(open_and_try(&t, &choices[now], patient, &slow, &done));
        if (done) {
            *which = now;
            return FV_OK;
        }
        if (slow && t.rate > best_rate) best_rate = t.rate, best = i;
        bool last = patient || (i + 1 == n && best < 0);
        fv_log(ctx, FV_LOG_WARN, "%s: %s%s", choices[now].url, t.reason, last ? "" : "; trying the next place");
        size_t used = strlen(reasons);
        snprintf(reasons + used, sizeof reasons - used, "%s%s: %s", used ? "; " : "", choices[now].url, t.reason);
    }
    fv_fail(ctx, FV_E_IO, "%s could not be fetched: %s", choices[0].name, reasons);
    return fv_hint(
        ctx, "call it again to go on with what has come so far, or fetch the file by other means and put it at %s",
        choices[0].path);
}

fv_status fv_fetch_any(fv_ctx *ctx, const fv_fetch_choice *choices, int n, const fv_get_opts *opts, int *which,
                       bool *fetched) {
    char md5[33];
    *fetched = false;
    for (*which = 0; *which < n; ++*which) {
        const fv_fetch_choice *c = &choices[*which];
        if (*which > 0 && strcmp(c->path, choices[*which - 1].path) == 0) continue;
        if (!fv_data_exists(ctx, c->path)) continue;
        FV_TRY(fv_md5_file(ctx, c->path, md5));
        if (strcmp(md5, c->md5) == 0) return FV_OK;
        fv_log(ctx, FV_LOG_WARN, "%s is not the published file (MD5 %s); it will be replaced", c->path, md5);
    }
    for (int i = 0; i < n; i++)
        if (strncmp(choices[i].url, "http://", 7) != 0 && strncmp(choices[i].url, "https://", 8) != 0)
            return fv_fail(ctx, FV_E_USAGE, "'%s' is no http:// or https:// address", choices[i].url);
    curl_api api;
    FV_TRY(curl_load(ctx, &api));
    fv_status status = try_all(ctx, &api, choices, n, opts, which);
    curl_unload(&api);
    *fetched = status == FV_OK;
    return status;
}
