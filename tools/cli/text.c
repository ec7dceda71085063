/* text.c: nearest words, figures for people, escaping. */
#include "tools/cli/options.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define FV_WORD 40

/* Edit distance with transpositions of neighbours (Damerau-Levenshtein, restricted). */
static int edit_distance(const char *a, const char *b) {
    int m = (int)strlen(a), n = (int)strlen(b), d[3][FV_WORD + 1];
    if (m > FV_WORD || n > FV_WORD) return FV_WORD;
    for (int j = 0; j <= n; j++) d[0][j] = j;
    for (int i = 1; i <= m; i++) {
        int *row = d[i % 3], *up = d[(i + 2) % 3], *upup = d[(i + 1) % 3];
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int best = up[j - 1] + (a[i - 1] != b[j - 1]);
            if (up[j] + 1 < best) best = up[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && upup[j - 2] + 1 < best)
                best = upup[j - 2] + 1;
            row[j] = best;
        }
    }
    return d[m % 3][n];
}

const char *fv_text_nearest(const char *word, const char *const *candidates, int n) {
    const char *best = NULL;
    int best_distance = FV_WORD, best_rank = 0;
    size_t length = strlen(word);
    for (int i = 0; i < n; i++) {
        int rank = edit_distance(word, candidates[i]), distance = rank;
        /* A word that was cut short or written on ("batch" for "batch-size") is near, too. */
        size_t other = strlen(candidates[i]), common = length < other ? length : other;
        if (common >= 3 && !strncmp(word, candidates[i], common) && distance > 2) distance = 2;
        if (distance > best_distance || (distance == best_distance && (!best || rank >= best_rank))) continue;
        best = candidates[i], best_distance = distance, best_rank = rank;
    }
    int allowed = length <= 3 ? 1 : length <= 7 ? 2 : 3;
    return best_distance <= allowed ? best : NULL;
}

int fv_text_utf8(const char *s) {
    const unsigned char *u = (const unsigned char *)s;
    int n = u[0] == 0 ? 0 : u[0] < 0x80 ? 1 : u[0] < 0xc2 ? 0 : u[0] < 0xe0 ? 2 : u[0] < 0xf0 ? 3 : u[0] < 0xf5 ? 4 : 0;
    for (int i = 1; i < n; i++)
        if ((u[i] & 0xc0) != 0x80) return 0;
    /* Overlong forms, surrogates and what lies beyond U+10FFFF. */
    if ((u[0] == 0xe0 && u[1] < 0xa0) || (u[0] == 0xed && u[1] > 0x9f)) return 0;
    if ((u[0] == 0xf0 && u[1] < 0x90) || (u[0] == 0xf4 && u[1] > 0x8f)) return 0;
    return n;
}

int fv_text_columns(const char *s) {
    int columns = 0;
    for (; *s; s++) columns += (*s & 0xc0) != 0x80;
    return columns;
}

const char *fv_text_line(const char *s, char *buf, size_t size) {
    size_t used = 0;
    while (*s && used + 5 < size) {
        int n = fv_text_utf8(s);
        bool strange =
            n == 0 || (unsigned char)*s < 0x20 || *s == 0x7f || (n == 2 && *s == '\xc2' && (unsigned char)s[1] < 0xa0);
        if (n == 0) n = 1;
        if (strange) buf[used++] = '?';
        else memcpy(buf + used, s, (size_t)n), used += (size_t)n;
        s += n;
    }
    buf[used] = '\0';
    return buf;
}

const char *fv_text_si(double value, char *buf, size_t size) {
    static const struct {
        double unit;
        const char *letter;
    } units[] = {{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}};
    for (int i = 0; i < 4; i++) {
        double v = value / units[i].unit;
        if (v < (i == 2 ? 0.1 : 1)) continue; /* 0.27M, but 555M */
        snprintf(buf, size, v < 1 ? "%.2f%s" : v < 100 ? "%.3g%s" : "%.0f%s", v, units[i].letter);
        return buf;
    }
    snprintf(buf, size, "%.0f", value);
    return buf;
}

const char *fv_text_bytes(double bytes, char *buf, size_t size) {
    if (bytes >= 1e9) snprintf(buf, size, "%.2f GB", bytes / 1e9);
    else if (bytes >= 1e6) snprintf(buf, size, "%.2f MB", bytes / 1e6);
    else if (bytes >= 1e3) snprintf(buf, size, "%.2f kB", bytes / 1e3);
    else snprintf(buf, size, "%.0f B", bytes);
    return buf;
}

const char *fv_text_duration(double seconds, char *buf, size_t size) {
    if (!(seconds >= 0 && seconds < 1e8)) seconds = 0;
    long s = lround(seconds);
    if (s >= 3600) snprintf(buf, size, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else snprintf(buf, size, "%ld:%02ld", s / 60, s % 60);
    return buf;
}

void fv_text_html(FILE *to, const char *s) {
    for (; *s; s++) switch (*s) {
        case '&': fputs("&amp;", to); break;
        case '<': fputs("&lt;", to); break;
        case '>': fputs("&gt;", to); break;
        case '"': fputs("&quot;", to); break;
        case '\'': fputs("&#39;", to); break;
        default: fputc(*s, to);
        }
}

void fv_text_csv(FILE *to, const char *s) {
    if (!strpbrk(s, ",\"\r\n")) {
        fputs(s, to);
        return;
    }
    fputc('"', to);
    for (; *s; s++) {
        if (*s == '"') fputc('"', to);
        fputc(*s, to);
    }
    fputc('"', to);
}
