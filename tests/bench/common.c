#define _GNU_SOURCE
#include "common.h"

#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* A server that does not answer for so long has failed. */
#define TIMEOUT_SECONDS 30

void die(const char *format, ...)
{
    int number = errno;
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    if (number)
        fprintf(stderr, ": %s", strerror(number));
    fputc('\n', stderr);
    exit(1);
}

void *allocate(size_t size)
{
    void *memory = malloc(size ? size : 1);
    if (!memory)
        die("no memory for %zu bytes", size);
    return memory;
}

unsigned long number(const char *text, const char *option)
{
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (errno || end == text || *end)
        die("--%s wants a number, not %s", option, text);
    return value;
}

uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void pin(int cpu)
{
    if (cpu < 0)
        return;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set))
        fprintf(stderr, "not pinned to processor %d: %s\n", cpu, strerror(errno));
    errno = 0;
}

char *read_file(const char *path, size_t *length)
{
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END))
        die("%s", path);
    long size = ftell(file);
    if (size < 0)
        die("%s", path);
    rewind(file);
    char *bytes = allocate((size_t)size + 1);
    if (fread(bytes, 1, (size_t)size, file) != (size_t)size)
        die("%s", path);
    fclose(file);
    bytes[size] = 0;
    *length = (size_t)size;
    return bytes;
}

static int unix_socket(const char *path, int type, struct sockaddr_un *address)
{
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    if (strlen(path) >= sizeof address->sun_path) {
        errno = ENAMETOOLONG;
        die("%s", path);
    }
    strcpy(address->sun_path, path);
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die("socket");
    return fd;
}

int connect_unix(const char *path, int type)
{
    struct sockaddr_un address;
    int fd = unix_socket(path, type, &address);
    static const struct timeval timeout = {.tv_sec = TIMEOUT_SECONDS};
    if (connect(fd, (struct sockaddr *)&address, sizeof address) ||
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout) ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout))
        die("connect to %s", path);
    return fd;
}

int listen_unix(const char *path)
{
    struct sockaddr_un address;
    int fd = unix_socket(path, SOCK_STREAM | SOCK_NONBLOCK, &address);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, SOMAXCONN))
        die("listen on %s", path);
    return fd;
}

void samples_prepare(struct samples *samples, size_t room)
{
    samples->ns = allocate(room * sizeof *samples->ns);
    memset(samples->ns, 0, room * sizeof *samples->ns);
    samples->count = 0;
    samples->room = room;
}

void samples_add(struct samples *samples, uint64_t ns)
{
    if (samples->count == samples->room) {
        samples->room = samples->room * 2 + 1024;
        samples->ns = realloc(samples->ns, samples->room * sizeof *samples->ns);
        if (!samples->ns)
            die("no memory for %zu samples", samples->room);
    }
    samples->ns[samples->count++] = ns;
}

static int ascending(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

/* The nearest-rank quantile of sorted samples. */
static uint64_t quantile(const struct samples *samples, double share)
{
    size_t rank = (size_t)(share * (double)samples->count);
    return samples->ns[rank < samples->count ? rank : samples->count - 1];
}

void samples_print(struct samples *samples)
{
    if (!samples->count)
        die("nothing was measured");
    qsort(samples->ns, samples->count, sizeof *samples->ns, ascending);
    static const struct {
        const char *name;
        double share;
    } shown[] = {{"min", 0}, {"median", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p999", 0.999}, {"max", 1}};
    for (size_t i = 0; i < sizeof shown / sizeof *shown; i++)
        printf("\"%s_ns\":%llu,", shown[i].name, (unsigned long long)quantile(samples, shown[i].share));
    printf("\"count\":%zu", samples->count);
}
