/* test_data_get.c: MD5, archives, and downloads from a server of our own (tests/http_server.py). */
#include "tests/data_sets.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

Suite *data_get_suite(void);

#define BODY 20011 /* bytes of the file that is fetched; small enough for /slow to be slow, no multiple of anything */

static char served[160], log_lines[4096];
static pid_t server;
static int server_input = -1, port;

static void keep_log(void *user, fv_log_level level, const char *line) {
    (void)user, (void)level;
    size_t n = strlen(log_lines);
    snprintf(log_lines + n, sizeof log_lines - n, "%s\n", line);
}

static void setup(void) {
    fvt_sets_setup();
    snprintf(served, sizeof served, "%s/served", fvt_sets.folder);
    ck_assert_int_eq(mkdir(served, 0777), 0);
    fvt_sets.ctx.log = keep_log;
    log_lines[0] = 0;
    setenv("no_proxy", "127.0.0.1", 1);
}

/* False, loudly, where there is no python3. */
static bool start_server(void) {
    int in[2], out[2];
    ck_assert_int_eq(pipe(in), 0);
    ck_assert_int_eq(pipe(out), 0);
    server = fork();
    if (server == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        close(in[0]), close(in[1]), close(out[0]), close(out[1]);
        execlp("python3", "python3", "tests/http_server.py", served, (char *)NULL);
        _exit(127);
    }
    close(in[0]), close(out[1]);
    server_input = in[1];
    fcntl(server_input, F_SETFD, FD_CLOEXEC);
    FILE *f = fdopen(out[0], "r");
    int read = fscanf(f, "%d", &port);
    fclose(f);
    if (read == 1) return true;
    fprintf(stderr, "data_get: SKIPPED: python3 could not run tests/http_server.py\n");
    return false;
}

static void server_setup(void) {
    setup();
    server = 0;
    if (!start_server()) port = 0;
}

static void server_teardown(void) {
    if (server_input >= 0) close(server_input);
    server_input = -1;
    if (server > 0) waitpid(server, NULL, 0);
    fvt_sets_teardown();
}

static void make_body(uint8_t *body) {
    for (int i = 0; i < BODY; i++) body[i] = (uint8_t)((unsigned)i * 2654435761u >> 11);
}

static void md5_of(const void *data, size_t bytes, char hex[33]) {
    fv_md5 m;
    fv_md5_init(&m);
    fv_md5_update(&m, data, bytes);
    fv_md5_final(&m, hex);
}

static int requests(const char *what) { /* lines of the server's log that contain `what` */
    char path[256], line[256];
    snprintf(path, sizeof path, "%s/requests.log", served);
    FILE *f = fopen(path, "r");
    int n = 0;
    while (f && fgets(line, sizeof line, f)) n += strstr(line, what) != NULL;
    if (f) fclose(f);
    return n;
}

static int64_t size_of(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 ? st.st_size : -1;
}

/* ---------------------------------------------------------------- MD5: RFC 1321, appendix A.5 */

START_TEST(test_md5) {
    static const struct {
        const char *text, *hex;
    } cases[] = {
        {"", "d41d8cd98f00b204e9800998ecf8427e"},
        {"a", "0cc175b9c0f1b6a831c399e269772661"},
        {"abc", "900150983cd24fb0d6963f7d28e17f72"},
        {"message digest", "f96b697d7cb7938d525a2f31aaf161d0"},
        {"abcdefghijklmnopqrstuvwxyz", "c3fcd3d76192e4007dfb496cca67e13b"},
        {"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", "d174ab98d277d9f5a5611c2c9f419d9f"},
        {"12345678901234567890123456789012345678901234567890123456789012345678901234567890",
         "57edf4a22be3c955ac49da2e2107b67a"},
    };
    char hex[33], parts[33];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        md5_of(cases[i].text, strlen(cases[i].text), hex);
        ck_assert_str_eq(hex, cases[i].hex);
    }
    uint8_t body[300];
    for (size_t n = 0; n < sizeof body; n++) { /* in any pieces */
        body[n] = (uint8_t)(n * 37);
        fv_md5 m;
        fv_md5_init(&m);
        fv_md5_update(&m, body, n / 3);
        fv_md5_update(&m, body + n / 3, n - n / 3);
        fv_md5_final(&m, parts);
        md5_of(body, n, hex);
        ck_assert_str_eq(hex, parts);
    }
}
END_TEST

/* ---------------------------------------------------------------- archives */

typedef struct member {
    const char *name;
    char type;
    const char *text;
} member;

static size_t tar_member(uint8_t *to, const member *m, size_t claimed) {
    memset(to, 0, 512);
    snprintf((char *)to, 100, "%s", m->name);
    char octal[24];
    snprintf(octal, sizeof octal, "%011zo", claimed);
    memcpy(to + 124, octal, 12);
    to[156] = (uint8_t)m->type;
    memcpy(to + 257, "ustar\00000", 8);
    memset(to + 148, ' ', 8);
    unsigned sum = 0;
    for (int i = 0; i < 512; i++) sum += to[i];
    snprintf((char *)to + 148, 8, "%06o", sum);
    size_t n = strlen(m->text), padded = (n + 511) / 512 * 512;
    memset(to + 512, 0, padded);
    memcpy(to + 512, m->text, n);
    return 512 + padded;
}

static size_t tar(uint8_t *to, const member *members, int n) {
    size_t size = 0;
    for (int i = 0; i < n; i++) size += tar_member(to + size, &members[i], strlen(members[i].text));
    memset(to + size, 0, 1024);
    return size + 1024;
}

static const member good[] = {{"set/", '5', ""},
                              {"set/readme.html", '0', "not asked for"},
                              {"./set/one.bin", '0', "first"},
                              {"../../evil", '0', "stays in the archive"},
                              {"/etc/evil", '0', "so does this"},
                              {"set/two.bin", '0', "the second member"}};
static const char *const wanted[] = {"set/one.bin", "set/two.bin", NULL};

static fv_status unpack_bytes(const uint8_t *bytes, size_t size) {
    char archive[256], out[256];
    snprintf(archive, sizeof archive, "%s/a.tar.gz", fvt_sets.folder);
    snprintf(out, sizeof out, "%s/out", fvt_sets.folder);
    fvt_put_file(archive, bytes, size);
    mkdir(out, 0777);
    return fv_archive_unpack(&fvt_sets.ctx, archive, wanted, out);
}

static void ck_file_is(const char *name, const char *text) {
    char path[256];
    void *data;
    size_t size;
    snprintf(path, sizeof path, "%s/%s", fvt_sets.folder, name);
    ck_assert_msg(fv_read_file(&fvt_sets.ctx, path, 1 << 20, &data, &size) == FV_OK, "%s: %s", path,
                  fvt_sets.ctx.error.message);
    ck_assert_str_eq(data, text);
    fv_free(&fvt_sets.ctx, data, size + 1, 1);
}

START_TEST(test_archive) {
    uint8_t plain[16384], gz[16384];
    size_t size = tar(plain, good, 6), gz_size = fvt_gzip(plain, size, gz, sizeof gz);
    ck_assert_msg(unpack_bytes(gz, gz_size) == FV_OK, "%s", fvt_sets.ctx.error.message);
    ck_file_is("out/one.bin", "first");
    ck_file_is("out/two.bin", "the second member");
    char path[256];
    snprintf(path, sizeof path, "%s/out", fvt_sets.folder);
    ck_assert_int_eq(fvt_count_files(path), 2);
    snprintf(path, sizeof path, "%s/evil", fvt_sets.folder);
    ck_assert_int_eq(size_of(path), -1);
    ck_assert_int_eq(unpack_bytes(plain, size), FV_OK); /* not packed: the same */

    struct {
        member members[2];
        const char *message;
    } bad[] = {{{{"set/one.bin", '0', "first"}, {"set/other", '0', "x"}}, "a member is missing: set/two.bin"},
               {{{"set/one.bin", '2', ""}, {"set/two.bin", '0', "x"}}, "not a plain file"},
               {{{"set/one.bin", '0', "x"}, {"set/one.bin", '0', "x"}}, "there twice"}};
    for (int i = 0; i < 3; i++) {
        size = tar(plain, bad[i].members, 2);
        ck_assert_int_eq(unpack_bytes(plain, size), FV_E_DATA);
        ck_assert_msg(strstr(fvt_sets.ctx.error.message, bad[i].message) != NULL, "%s", fvt_sets.ctx.error.message);
    }
    size = tar_member(plain, &good[2], (size_t)6 << 30);
    ck_assert_int_eq(unpack_bytes(plain, size), FV_E_DATA);
    ck_assert_ptr_nonnull(strstr(fvt_sets.ctx.error.message, "larger than can be right"));
}
END_TEST

/* Every truncation and every flip of a bit of the packed and (in the headers) of the plain archive: no crash, and an
 * error or the right files. */
START_TEST(test_damaged_archive) {
    uint8_t plain[16384], gz[16384], copy[16384];
    size_t size = tar(plain, good, 6), gz_size = fvt_gzip(plain, size, gz, sizeof gz);
    for (size_t n = 0; n < gz_size; n++) ck_assert_int_eq(unpack_bytes(gz, n), FV_E_DATA);
    for (size_t i = 0; i < 8 * gz_size; i++) {
        memcpy(copy, gz, gz_size);
        copy[i / 8] ^= (uint8_t)(1 << (i % 8));
        fv_status status = unpack_bytes(copy, gz_size);
        ck_assert(status == FV_OK || status == FV_E_DATA);
        if (status == FV_OK) ck_file_is("out/two.bin", "the second member");
    }
    for (size_t i = 0; i < 512; i++) {      /* the header's checksum finds a flip anywhere in it */
        if (i == 154 || i == 155) continue; /* but for what ends the checksum itself */
        memcpy(copy, plain, size);
        copy[512 + 512 + 512 + i] ^= (uint8_t)(1 << (i % 7));
        fv_status status = unpack_bytes(copy, size);
        ck_assert_msg(status == FV_E_DATA, "byte %zu", i);
    }
}
END_TEST

START_TEST(test_archive_faults) {
    uint8_t plain[16384], gz[16384];
    size_t size = tar(plain, good, 6), gz_size = fvt_gzip(plain, size, gz, sizeof gz);
    for (int64_t n = 1;; n++) {
        fvt_sets.memory.calls = 0;
        fvt_sets.memory.fail_at = n;
        fv_status status = unpack_bytes(gz, gz_size);
        bool reached = fvt_sets.memory.calls >= n;
        fvt_sets.memory.fail_at = 0;
        ck_assert_int_eq(status, reached ? FV_E_MEMORY : FV_OK);
        ck_assert_int_eq(fvt_sets.memory.live, 0);
        if (!reached) break;
    }
    static const fvt_call calls[] = {FVT_OPEN, FVT_READ, FVT_WRITE, FVT_FSYNC, FVT_CLOSE, FVT_RENAME};
    char out[256];
    snprintf(out, sizeof out, "%s/out", fvt_sets.folder);
    for (size_t c = 0; c < sizeof calls / sizeof *calls; c++)
        for (int64_t n = 1; n < 20; n++) {
            fvt_remove_folder(out);
            fvt_files_install(&fvt_sets.files, &fvt_sets.ctx);
            fvt_sets.files.fail = calls[c], fvt_sets.files.fail_at = n, fvt_sets.files.error = ENOSPC;
            fv_status status = unpack_bytes(gz, gz_size);
            bool reached = fvt_sets.files.calls[calls[c]] >= n;
            if (!reached) {
                ck_assert_int_eq(status, FV_OK);
                break;
            }
            ck_assert_int_eq(fvt_sets.files.open_files, 0);
            ck_assert_msg(status == FV_E_IO || (calls[c] == FVT_CLOSE && status == FV_OK), "call %d %lld: %d",
                          (int)calls[c], (long long)n, (int)status);
        }
}
END_TEST

/* ---------------------------------------------------------------- downloads */

static uint8_t body[BODY];
static char body_md5[33], target[256], part[272];
static int64_t last_done, last_total;

static void see_progress(void *user, const char *file, const char *url, int64_t done, int64_t total) {
    (void)user, (void)url;
    ck_assert_str_eq(file, "file");
    last_done = done;
    last_total = total;
}

/* Serve the body, and fetch it by the given modes in turn. */
static fv_status fetch(const char *const *modes, int n, bool sized, int *which) {
    char path[256], urls[4][128];
    fv_fetch_choice choices[4];
    bool fetched;
    make_body(body);
    md5_of(body, sizeof body, body_md5);
    snprintf(path, sizeof path, "%s/file", served);
    fvt_put_file(path, body, sizeof body);
    snprintf(target, sizeof target, "%s/got", fvt_sets.folder);
    snprintf(part, sizeof part, "%s.part", target);
    for (int i = 0; i < n; i++) {
        snprintf(urls[i], sizeof urls[i], "http://127.0.0.1:%d/%s/file", strcmp(modes[i], "down") == 0 ? 9 : port,
                 modes[i]);
        choices[i] = (fv_fetch_choice){
            .url = urls[i], .name = "file", .md5 = body_md5, .bytes = sized ? BODY : 0, .path = target};
    }
    const fv_get_opts opts = {.low_speed_bytes = 1000, .low_speed_seconds = 1, .progress = see_progress};
    last_done = last_total = -1;
    return fv_fetch_any(&fvt_sets.ctx, choices, n, &opts, which, &fetched);
}

static void ck_fetched(void) {
    void *data;
    size_t size;
    ck_assert_int_eq(fv_read_file(&fvt_sets.ctx, target, 1 << 20, &data, &size), FV_OK);
    ck_assert_uint_eq(size, BODY);
    ck_assert_mem_eq(data, body, BODY);
    fv_free(&fvt_sets.ctx, data, size + 1, 1);
    ck_assert_int_eq(size_of(part), -1);
}

static const struct {
    const char *modes[4];
    int n, right; /* which of them delivers; -1: none */
    const char *log;
} plans[] = {
    {{"plain"}, 1, 0, ""},
    {{"range"}, 1, 0, ""},
    {{"redirect"}, 1, 0, ""},
    {{"once"}, 1, 0, ""}, /* cut short, then continued */
    {{"cut"}, 1, -1, "partial file"},
    {{"cut", "range"}, 2, 1, "trying the next place"},
    {{"cut", "plain"}, 2, 1, "trying the next place"}, /* begins anew where ranges are not known */
    {{"cut", "badrange", "range"}, 3, 2, "another range"},
    {{"403", "range"}, 2, 1, "HTTP status 403"},
    {{"down", "range"}, 2, 1, "trying the next place"},
    {{"wrong", "range"}, 2, 1, "wrong contents"},
    {{"html", "short", "wrong", "plain"}, 4, 3, "wrong contents"},
    {{"slow", "range"}, 2, 1, "kB/s"},
    {{"403", "wrong", "down"}, 3, -1, "HTTP status 403"},
};

START_TEST(test_fetch) {
    int which;
    if (!port) return;
    for (int sized = 0; sized < 2; sized++) {
        fv_status status = fetch(plans[_i].modes, plans[_i].n, sized, &which);
        ck_assert_msg(strstr(log_lines, plans[_i].log) != NULL, "log: %s", log_lines);
        if (plans[_i].right < 0) {
            ck_assert_int_eq(status, FV_E_IO);
            ck_assert_ptr_nonnull(strstr(fvt_sets.ctx.error.message, "could not be fetched"));
            ck_assert_int_eq(size_of(target), -1);
        } else {
            ck_assert_msg(status == FV_OK, "%s", fvt_sets.ctx.error.message);
            ck_assert_int_eq(which, plans[_i].right);
            ck_assert_int_eq(last_done, BODY);
            ck_assert_int_eq(last_total, BODY);
            ck_fetched();
        }
        unlink(target);
        unlink(part);
    }
}
END_TEST

/* All places are slow: the fastest is asked again with patience, and goes on from where it was. */
START_TEST(test_fetch_patience) {
    int which;
    if (!port) return;
    char path[256];
    snprintf(path, sizeof path, "%s/slow", served);
    const fv_get_opts opts = {.low_speed_bytes = 100000, .low_speed_seconds = 1};
    char url[128], md5[33];
    uint8_t small[90]; /* 20 bytes at once, then 20 a second */
    for (size_t i = 0; i < sizeof small; i++) small[i] = (uint8_t)(i * i);
    fvt_put_file(path, small, sizeof small);
    md5_of(small, sizeof small, md5);
    snprintf(url, sizeof url, "http://127.0.0.1:%d/slow/slow", port);
    snprintf(target, sizeof target, "%s/got", fvt_sets.folder);
    const fv_fetch_choice choice = {.url = url, .name = "slow", .md5 = md5, .bytes = sizeof small, .path = target};
    bool fetched;
    ck_assert_msg(fv_fetch_any(&fvt_sets.ctx, &choice, 1, &opts, &which, &fetched) == FV_OK, "%s",
                  fvt_sets.ctx.error.message);
    ck_assert(fetched);
    ck_assert_int_eq(size_of(target), sizeof small);
    ck_assert_int_eq(requests("/slow/slow"), 2);
    ck_assert_int_eq(requests("bytes="), 1);
    ck_assert_int_eq(fv_fetch_any(&fvt_sets.ctx, &choice, 1, &opts, &which, &fetched),
                     FV_OK); /* there already: no request */
    ck_assert(!fetched);
    ck_assert_int_eq(requests("/slow/slow"), 2);
}
END_TEST

START_TEST(test_fetch_resume) {
    int which;
    if (!port) return;
    static const char *const range[] = {"range"};
    ck_assert_int_eq(fetch(range, 1, true, &which), FV_OK);
    unlink(target);
    fvt_put_file(part, body, 777); /* left by a run that was killed */
    ck_assert_int_eq(fetch(range, 1, true, &which), FV_OK);
    ck_assert_int_eq(requests("bytes=777-"), 1);
    ck_fetched();
    unlink(target);
    fvt_put_file(part, body, BODY); /* complete, not yet renamed: no request */
    int before = requests("/range/");
    ck_assert_int_eq(fetch(range, 1, true, &which), FV_OK);
    ck_assert_int_eq(requests("/range/"), before);
    ck_fetched();
    unlink(target);
    fvt_put_file(part, body, BODY); /* the same without a published size: the server says 416 */
    ck_assert_int_eq(fetch(range, 1, false, &which), FV_OK);
    ck_fetched();
    unlink(target);
    fvt_put_file(part, "something else", 14); /* a wrong beginning: once more from the start */
    ck_assert_int_eq(fetch(range, 1, true, &which), FV_OK);
    ck_fetched();
    unlink(target);
    char *long_part = calloc(1, BODY + 5);
    fvt_put_file(part, long_part, BODY + 5);
    free(long_part);
    ck_assert_int_eq(fetch(range, 1, true, &which), FV_OK);
    ck_fetched();
    fvt_put_file(target, "user's own", 10); /* another file under this name is replaced, with a warning */
    ck_assert_int_eq(fetch(range, 1, true, &which), FV_OK);
    ck_fetched();
    ck_assert_ptr_nonnull(strstr(log_lines, "is not the published file"));
}
END_TEST

START_TEST(test_fetch_faults) {
    int which;
    if (!port) return;
    static const char *const range[] = {"range"};
    static const fvt_call calls[] = {FVT_OPEN, FVT_WRITE, FVT_FSYNC, FVT_CLOSE, FVT_RENAME, FVT_SIZE};
    ck_assert_int_eq(fetch(range, 1, true, &which), FV_OK);
    unlink(target);
    for (size_t c = 0; c < sizeof calls / sizeof *calls; c++)
        for (int64_t n = 1; n < 20; n++) {
            fvt_files_install(&fvt_sets.files, &fvt_sets.ctx);
            fvt_sets.files.fail = calls[c], fvt_sets.files.fail_at = n, fvt_sets.files.error = ENOSPC;
            fv_status status = fetch(range, 1, true, &which);
            bool reached = fvt_sets.files.calls[calls[c]] >= n;
            ck_assert_int_eq(fvt_sets.files.open_files, 0);
            fvt_sets.files.fail_at = 0;
            if (status == FV_OK) ck_fetched();
            else ck_assert_msg(status == FV_E_IO, "call %d %lld: status %d", (int)calls[c], (long long)n, (int)status);
            if (status != FV_OK && calls[c] == FVT_WRITE)
                ck_assert_ptr_nonnull(strstr(fvt_sets.ctx.error.hint, "free some space"));
            fvt_files_install(&fvt_sets.files, &fvt_sets.ctx);
            ck_assert_int_eq(fetch(range, 1, true, &which), FV_OK); /* nothing is lost: the next run completes it */
            ck_fetched();
            unlink(target);
            if (!reached) break;
        }
    fvt_put_file(part, body, 10);
    int fd = open(part, O_RDWR);
    ck_assert_int_eq(flock(fd, LOCK_EX), 0);
    ck_assert_int_eq(fetch(range, 1, true, &which), FV_E_IO);
    ck_assert_ptr_nonnull(strstr(fvt_sets.ctx.error.message, "another program"));
    ck_assert_int_eq(size_of(part), 10);
    close(fd);
    static const fv_fetch_choice file_url = {.url = "file:///etc/passwd", .name = "x", .md5 = "", .path = "/nowhere/x"};
    const fv_get_opts none = {0};
    bool fetched;
    ck_assert_int_eq(fv_fetch_any(&fvt_sets.ctx, &file_url, 1, &none, &which, &fetched), FV_E_USAGE);
}
END_TEST

/* A whole set: an archive, of which either form will do, and one of single files. */
START_TEST(test_source_get) {
    if (!port) return;
    uint8_t plain[16384], gz[16384];
    char path[256], md5[2][33], mirror[2][64];
    size_t size = tar(plain, good, 6), gz_size = fvt_gzip(plain, size, gz, sizeof gz);
    snprintf(path, sizeof path, "%s/set.tar.gz", served);
    fvt_put_file(path, gz, gz_size);
    md5_of(gz, gz_size, md5[0]);
    snprintf(path, sizeof path, "%s/single", served);
    fvt_put_file(path, "single file", 11);
    md5_of("single file", 11, md5[1]);
    const fv_source archive = {
        .name = "cifar10",
        .any = true,
        .files = {{.name = "absent.tar.gz", .md5 = md5[0], .folder = "x", .members = {"x"}},
                  {.name = "set.tar.gz", .md5 = md5[0], .folder = "set", .members = {"set/one.bin", "set/two.bin"}}}};
    const fv_source single = {.name = "mnist", .files = {{.name = "single", .md5 = md5[1], .bytes = 11}}};
    snprintf(mirror[0], sizeof mirror[0], "http://127.0.0.1:%d/403", port);
    snprintf(mirror[1], sizeof mirror[1], "http://127.0.0.1:%d/range/", port);
    const fv_get_opts opts = {.root = fvt_sets.folder, .mirrors = (const char *const[]){mirror[0], mirror[1], NULL}};
    ck_assert_msg(fv_source_get(&fvt_sets.ctx, &archive, &opts) == FV_OK, "%s", fvt_sets.ctx.error.message);
    ck_file_is("cifar10/set/one.bin", "first");
    ck_file_is("cifar10/set/two.bin", "the second member");
    snprintf(path, sizeof path, "%s/cifar10/set.tar.gz", fvt_sets.folder);
    ck_assert_int_eq(size_of(path), -1); /* it was ours to remove */
    fvt_put_file(path, gz, gz_size);     /* one that the user fetched stays, and saves the network */
    int before = requests("set.tar.gz");
    ck_assert_int_eq(fv_source_get(&fvt_sets.ctx, &archive, &opts), FV_OK);
    ck_assert_int_eq(requests("set.tar.gz"), before);
    ck_assert_int_eq(size_of(path), (int64_t)gz_size);
    ck_assert_int_eq(fv_source_get(&fvt_sets.ctx, &single, &opts), FV_OK);
    ck_file_is("mnist/single", "single file");
    ck_assert_int_eq(fv_data_get(&fvt_sets.ctx, "cifar-10", &opts), FV_E_USAGE);
    ck_assert_str_eq(fvt_sets.ctx.error.hint, "did you mean 'cifar10'?");
}
END_TEST

/* The built-in table is what its users rely on: every dataset that can be fetched is one that can be opened. */
START_TEST(test_sources) {
    for (const fv_data_kind *k = fv_data_kinds(); k->name; k++) {
        const fv_source *s = fv_source_find(k->name);
        ck_assert_ptr_nonnull(s);
        for (const fv_source_file *f = s->files; f->name; f++) {
            ck_assert_uint_eq(strlen(f->md5), 32);
            ck_assert_uint_eq(strspn(f->md5, "0123456789abcdef"), 32);
            ck_assert_ptr_nonnull(f->bases[0]);
            for (const char *const *b = f->bases; *b; b++)
                ck_assert(strncmp(*b, "http", 4) == 0 && (*b)[strlen(*b) - 1] == '/');
            bool layout = !f->folder;
            for (const fv_data_layout *l = k->layout; l->subfolder && f->folder; l++)
                layout |= strcmp(l->subfolder, f->folder) == 0;
            ck_assert_msg(layout, "%s unpacks to %s", f->name, f->folder);
        }
    }
}
END_TEST

/* Sets that are there but are not the published ones. */
START_TEST(test_check) {
    uint8_t bytes[16384];
    const char *root = fvt_sets.folder;
    const fv_get_opts opts = {.root = root, .mirrors = (const char *const[]){"http://127.0.0.1:9", NULL}};
    ck_assert_int_eq(fv_data_check(&fvt_sets.ctx, "synthetic", root), FV_OK);
    fvt_ck_refused(fv_data_check(&fvt_sets.ctx, "cifar10", root), FV_E_DATA, NULL, "was not found");
    fvt_make_dirs("cifar10");
    fvt_put_cifar10("cifar10");
    fvt_ck_refused(fv_data_check(&fvt_sets.ctx, "cifar10", root), FV_E_DATA, "cifar10",
                   "train has 10 images, the published");
    ck_assert_int_eq(fv_data_check(&fvt_sets.ctx, fvt_in_folder("cifar10"), NULL), FV_OK); /* a set of the user's own */
    fvt_ck_refused(fv_data_get(&fvt_sets.ctx, "cifar10", &opts), FV_E_IO, NULL, "could not be fetched");
    ck_assert_ptr_nonnull(strstr(log_lines, "is not in order"));
    fvt_make_dirs("cifar100/cifar-100-python");
    size_t size = fvt_read_pickle("python2.pkl", bytes, sizeof bytes);
    uint8_t *key = memmem(bytes, size, "\x06labels", 7); /* cut "fine_labels" into the place of another key */
    ck_assert_ptr_nonnull(key);
    memmove(key + 12, key + 7, size - (size_t)(key + 7 - bytes));
    memcpy(key,
           "\x0b"
           "fine_labels",
           12);
    fvt_put_file(fvt_in_folder("cifar100/cifar-100-python/train"), bytes, size + 5);
    fvt_ck_refused(fv_data_check(&fvt_sets.ctx, "cifar100", root), FV_E_DATA, "cifar-100-python/train",
                   "published is 16019d7e");
    fvt_make_dirs("mnist");
    fvt_put_idx("mnist/train-images-idx3-ubyte.gz", "mnist/train-labels-idx1-ubyte.gz", true, 7);
    fvt_ck_refused(fv_data_check(&fvt_sets.ctx, "mnist", root), FV_E_DATA, "mnist", "train has 7 images");
    ck_assert_ptr_nonnull(strstr(log_lines, "was packed anew"));
}
END_TEST

Suite *data_get_suite(void) {
    Suite *suite = suite_create("data_get");
    TCase *tcase = tcase_create("archives");
    tcase_set_timeout(tcase, 120);
    tcase_add_checked_fixture(tcase, setup, fvt_sets_teardown);
    tcase_add_test(tcase, test_md5);
    tcase_add_test(tcase, test_archive);
    tcase_add_test(tcase, test_damaged_archive);
    tcase_add_test(tcase, test_archive_faults);
    tcase_add_test(tcase, test_sources);
    tcase_add_test(tcase, test_check);
    suite_add_tcase(suite, tcase);
    tcase = tcase_create("downloads");
    tcase_set_timeout(tcase, 120);
    tcase_add_checked_fixture(tcase, server_setup, server_teardown);
    tcase_add_loop_test(tcase, test_fetch, 0, sizeof plans / sizeof *plans);
    tcase_add_test(tcase, test_fetch_patience);
    tcase_add_test(tcase, test_fetch_resume);
    tcase_add_test(tcase, test_fetch_faults);
    tcase_add_test(tcase, test_source_get);
    suite_add_tcase(suite, tcase);
    return suite;
}
