// Looks for bytes in the memory of another process: every readable mapping, every position.
//
//   scanner /proc/PID <forms      forms: for each, its length (4 bytes, little-endian) and its bytes, at least WINDOW of them
//
// Prints `hit FORM ADDRESS LENGTH` for each stretch of memory that equals a form, or a part of one of at least WINDOW bytes (any
// part of 2 * WINDOW - 1 bytes is found, and a form of WINDOW bytes if it is whole) and as many characters, then
// `read BYTES UNREADABLE`.
// In C because it looks at some 40 MiB for a hundred thousand windows, a few dozen times in a run of the tests.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WINDOW = 8, STRIDE = 8, CHARACTERS = 8, PAGE = 4096 };

struct window {
    uint64_t key;
    uint32_t form;
    uint32_t offset;
    uint32_t next; // of the same hash; 0 ends
};

static unsigned char **forms;
static uint32_t *lengths, form_count;
static struct window *windows;
static uint32_t window_count = 1, *heads, mask;
static uint8_t maybe[1 << 19]; // a bit for each hash: most places are ruled out without leaving the processor's cache
static size_t *seen_until; // for each form, the end of its last hit, so that a copy is reported once

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static uint64_t key_at(const unsigned char *data) {
    uint64_t key;
    memcpy(&key, data, sizeof key);
    return key;
}

static uint32_t slot(uint64_t key) {
    return (uint32_t)((key * 0x9e3779b97f4a7c15u) >> 32) & mask;
}

static uint32_t bit(uint64_t key) {
    return (uint32_t)((key * 0xd6e8feb86659fd93u) >> 42);
}

static void add_window(uint32_t form, uint32_t offset) {
    if ((window_count & (window_count - 1)) == 0) {
        windows = realloc(windows, 2 * window_count * sizeof *windows);
        if (!windows) fail("realloc");
    }
    windows[window_count++] = (struct window){key_at(forms[form] + offset), form, offset, 0};
}

static void read_forms(void) {
    uint32_t length;
    while (fread(&length, sizeof length, 1, stdin) == 1) {
        forms = realloc(forms, (form_count + 1) * sizeof *forms);
        lengths = realloc(lengths, (form_count + 1) * sizeof *lengths);
        if (!forms || !lengths || length < WINDOW || !(forms[form_count] = malloc(length))) fail("form");
        if (fread(forms[form_count], length, 1, stdin) != 1) fail("form");
        lengths[form_count++] = length;
    }
    for (uint32_t form = 0; form < form_count; form++) {
        for (uint32_t offset = 0; offset + WINDOW <= lengths[form]; offset += STRIDE) add_window(form, offset);
        if (lengths[form] % STRIDE) add_window(form, lengths[form] - WINDOW);
    }
    for (mask = 1; mask < 8 * window_count; mask *= 2);
    heads = calloc(mask, sizeof *heads);
    seen_until = calloc(form_count, sizeof *seen_until);
    if (!heads || !seen_until) fail("calloc");
    mask--;
    for (uint32_t i = 1; i < window_count; i++) {
        maybe[bit(windows[i].key) / 8] |= 1 << bit(windows[i].key) % 8;
        windows[i].next = heads[slot(windows[i].key)];
        heads[slot(windows[i].key)] = i;
    }
}

// Whether a part is too long to be a coincidence: `\ud83c\u` may belong to any emoji. An escape is one character, and the zeros
// of a wide one are none.
static int tells_something(const unsigned char *part, size_t length) {
    size_t count = 0;
    for (size_t at = 0; at < length && count < CHARACTERS;) {
        if (part[at] == '\\') {
            while (at < length && part[at] == '\\') at++;
            if (at < length && part[at++] == 'u') {
                for (int digit = 0; digit < 4 && at < length && part[at] && strchr("0123456789abcdef", part[at]); digit++) at++;
            }
            count++;
        } else if (part[at++]) {
            count++;
        }
    }
    return count >= CHARACTERS;
}

static void look(const unsigned char *data, size_t size, uint64_t address) {
    memset(seen_until, 0, form_count * sizeof *seen_until);
    for (size_t at = 0; at + WINDOW <= size; at++) {
        uint64_t key = key_at(data + at);
        if (!key || !(maybe[bit(key) / 8] & 1 << bit(key) % 8)) continue;
        for (uint32_t i = heads[slot(key)]; i; i = windows[i].next) {
            if (windows[i].key != key || at < seen_until[windows[i].form]) continue;
            const unsigned char *form = forms[windows[i].form];
            size_t begin = windows[i].offset, end = begin + WINDOW, left = at, right = at + WINDOW;
            while (begin && left && form[begin - 1] == data[left - 1]) begin--, left--;
            while (end < lengths[windows[i].form] && right < size && form[end] == data[right]) end++, right++;
            seen_until[windows[i].form] = right;
            if (right - left == lengths[windows[i].form] || tells_something(data + left, right - left)) {
                printf("hit %" PRIu32 " %" PRIu64 " %zu\n", windows[i].form, address + left, right - left);
            }
        }
    }
}

int main(int argc, char **argv) {
    char name[4096], *line = NULL;
    size_t capacity = 0;
    uint64_t read_bytes = 0, unreadable = 0;
    if (argc != 2) return 2;
    read_forms();
    snprintf(name, sizeof name, "%s/maps", argv[1]);
    FILE *maps = fopen(name, "r");
    if (!maps) fail(name);
    snprintf(name, sizeof name, "%s/mem", argv[1]);
    int memory = open(name, O_RDONLY);
    if (memory < 0) fail(name);
    while (getline(&line, &capacity, maps) > 0) {
        uint64_t start, end;
        char readable;
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %c", &start, &end, &readable) != 3) fail("maps");
        if (readable != 'r') continue;
        size_t size = end - start, got = 0;
        unsigned char *data = calloc(1, size);
        if (!data) fail("calloc");
        while (got < size) {
            ssize_t count = pread(memory, data + got, size - got, (off_t)(start + got));
            if (count > 0) {
                got += (size_t)count;
                read_bytes += (uint64_t)count;
            } else if (count < 0 && errno != EIO && errno != EFAULT) {
                fail("mem");
            } else { // memory that the kernel gives to nobody: one page of it
                size_t page = PAGE - (got & (PAGE - 1));
                got += page;
                unreadable += page;
            }
        }
        look(data, size, start);
        free(data);
    }
    printf("read %" PRIu64 " %" PRIu64 "\n", read_bytes, unreadable);
    return 0;
}
