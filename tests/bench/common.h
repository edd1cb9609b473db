/* What the programs of the benchmark share: time, sockets, pinning, samples. */
#ifndef REMO_BENCH_COMMON_H
#define REMO_BENCH_COMMON_H

#include <stddef.h>
#include <stdint.h>

/* Print the message (and errno's text where errno is set) and exit with status 1. */
__attribute__((noreturn, format(printf, 1, 2))) void die(const char *format, ...);

void *allocate(size_t size);

/* A number of an option, or the end with a message. */
unsigned long number(const char *text, const char *option);

/* CLOCK_MONOTONIC in nanoseconds. */
uint64_t now_ns(void);

/* Keep this process on one processor; -1 leaves it to the scheduler. Where the machine refuses, that is said only. */
void pin(int cpu);

/* The bytes of a file, a zero behind them. */
char *read_file(const char *path, size_t *length);

/* A Unix socket of `type` connected to, or listening on, `path`. */
int connect_unix(const char *path, int type);
int listen_unix(const char *path);

/* Durations in nanoseconds, in memory that is touched before the clock starts. */
struct samples {
    uint64_t *ns;
    size_t count, room;
};

void samples_prepare(struct samples *samples, size_t room);
void samples_add(struct samples *samples, uint64_t ns);

/* `"median_ns":…,` and its like, as members of a JSON object without braces. Sorts the samples. */
void samples_print(struct samples *samples);

#endif
