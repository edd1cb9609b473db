/* The load generator: sends one request again and again over a Unix stream socket and times each reply.
 *
 * It knows no protocol: a request is the bytes of a file, and --reply says how to see where a reply ends. Prints one
 * JSON object. A reply that does not begin with --expect counts as an error; a connection that ends too early is fatal.
 */
#define _GNU_SOURCE
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char usage[] =
    "usage: load latency    --socket PATH --request FILE [OPTION...]   one connection, one request at a time\n"
    "       load throughput --socket PATH --request FILE [OPTION...]   many connections, one request at a time on each\n"
    "       load open       --socket PATH --request FILE --rate N [OPTION...]   new connections at a rate, whatever is answered\n"
    "       load spawn      [OPTION...] -- PROGRAM [ARGUMENT...]       start to end of a program that reads the request\n"
    "  --requests N       how many are timed (1000)\n"
    "  --seconds S        or as many as fit into this time\n"
    "  --warmup N         requests before those (0)\n"
    "  --connections N    for throughput (50)\n"
    "  --pace USEC        rest so long before each request\n"
    "  --rate N           for open: new connections per second, one request on each\n"
    "  --fresh            a new connection for each request; connecting and closing are part of the time\n"
    "  --greeting         the server speaks first: one line\n"
    "  --reply RULE       where a reply ends: line (default), eof, length32 (a big-endian length before it), bytes:N\n"
    "  --expect PREFIX    what a reply begins with\n"
    "  --cpu N            stay on this processor\n";

enum rule { LINE, END_OF_FILE, LENGTH32, BYTES };

static struct {
    const char *socket, *expect, *request_path;
    char *request;
    size_t request_size, expect_size, reply_bytes;
    enum rule rule;
    unsigned long requests, warmup, connections, pace_usec, rate;
    double seconds;
    int fresh, greeting, cpu;
} options = {.requests = 1000, .connections = 50, .cpu = -1};

/* A server that answers nothing for so long has failed. */
#define TIMEOUT_MSEC 30000

/* Longer than the longest reply of any contestant. */
#define REPLY_ROOM (128 * 1024)

struct connection {
    int fd;
    size_t received;
    uint64_t sent_at;
    char *reply;
};

static unsigned long errors, refused;
static size_t reply_size;

static void open_connection(struct connection *connection)
{
    connection->fd = connect_unix(options.socket, SOCK_STREAM);
    connection->received = 0;
    for (char byte = 0; options.greeting && byte != '\n';)
        if (recv(connection->fd, &byte, 1, 0) != 1)
            die("%s: no greeting", options.socket);
}

static void send_request(const struct connection *connection)
{
    for (size_t sent = 0; sent < options.request_size;) {
        ssize_t count = send(connection->fd, options.request + sent, options.request_size - sent, MSG_NOSIGNAL);
        if (count < 0 && errno != EINTR)
            die("send to %s", options.socket);
        sent += count > 0 ? (size_t)count : 0;
    }
    if (options.rule == END_OF_FILE)
        shutdown(connection->fd, SHUT_WR);
}

/* Whether the reply is whole once `fresh` more bytes have come; 0 of them: the peer has closed. */
static int take(struct connection *connection, size_t fresh)
{
    const char *reply = connection->reply, *tail = reply + connection->received;
    connection->received += fresh;
    switch (options.rule) {
    case LINE:
        return fresh && memchr(tail, '\n', fresh);
    case END_OF_FILE:
        return !fresh;
    case LENGTH32: {
        uint32_t length = 0;
        for (int i = 0; i < 4; i++)
            length = length << 8 | (uint8_t)reply[i];
        return connection->received >= 4 && connection->received >= 4 + (size_t)length;
    }
    case BYTES:
        return connection->received >= options.reply_bytes;
    }
    return 0;
}

/* One read; true when the reply is whole. */
static int receive(struct connection *connection)
{
    ssize_t count = recv(connection->fd, connection->reply + connection->received, REPLY_ROOM - connection->received, 0);
    if (count < 0)
        return errno == EINTR ? 0 : (die("%s: no reply", options.socket), 0);
    if (take(connection, (size_t)count))
        return 1;
    if (!count)
        die("%s: the server closed in mid-reply", options.socket);
    if (connection->received == REPLY_ROOM)
        die("%s: a reply is longer than %d bytes", options.socket, REPLY_ROOM);
    return 0;
}

static void check_reply(struct connection *connection)
{
    if (connection->received < options.expect_size || memcmp(connection->reply, options.expect, options.expect_size))
        if (!errors++)
            fprintf(stderr, "unexpected reply of %zu bytes from %s\n", connection->received, options.socket);
    reply_size = connection->received;
    connection->received = 0;
}

static uint64_t one_request(struct connection *connection)
{
    uint64_t begin = now_ns();
    if (options.fresh)
        open_connection(connection);
    send_request(connection);
    while (!receive(connection))
        ;
    if (options.fresh)
        close(connection->fd);
    uint64_t took = now_ns() - begin;
    check_reply(connection);
    return took;
}

static uint64_t deadline(uint64_t begin)
{
    return options.seconds > 0 ? begin + (uint64_t)(options.seconds * 1e9) : UINT64_MAX;
}

static double latency(struct samples *samples)
{
    struct connection connection = {.reply = allocate(REPLY_ROOM)};
    if (!options.fresh)
        open_connection(&connection);
    for (unsigned long i = 0; i < options.warmup; i++)
        one_request(&connection);
    uint64_t begin = now_ns(), end = deadline(begin);
    for (unsigned long i = 0; i < options.requests && now_ns() < end; i++) {
        if (options.pace_usec)
            usleep((useconds_t)options.pace_usec);
        samples_add(samples, one_request(&connection));
    }
    return (double)(now_ns() - begin) / 1e9;
}

static void begin_request(struct connection *connection)
{
    connection->sent_at = now_ns();
    send_request(connection);
}

static double throughput(struct samples *samples)
{
    struct connection *connections = allocate(options.connections * sizeof *connections);
    struct epoll_event event = {.events = EPOLLIN}, ready[256];
    int loop = epoll_create1(EPOLL_CLOEXEC);
    for (unsigned long i = 0; i < options.connections; i++) {
        connections[i].reply = allocate(REPLY_ROOM);
        open_connection(&connections[i]);
        event.data.ptr = &connections[i];
        if (epoll_ctl(loop, EPOLL_CTL_ADD, connections[i].fd, &event))
            die("epoll");
        for (unsigned long done = 0; done * options.connections < options.warmup; done++)
            one_request(&connections[i]);
    }
    uint64_t begin = now_ns(), end = deadline(begin), at = begin;
    unsigned long begun = 0, done = 0;
    for (unsigned long i = 0; i < options.connections && begun < options.requests; i++, begun++)
        begin_request(&connections[i]);
    while (done < begun) {
        int count = epoll_wait(loop, ready, sizeof ready / sizeof *ready, -1);
        for (int i = 0; i < count; i++) {
            struct connection *connection = ready[i].data.ptr;
            if (!receive(connection))
                continue;
            at = now_ns();
            samples_add(samples, at - connection->sent_at);
            check_reply(connection);
            done++;
            if (begun < options.requests && at < end) {
                begin_request(connection);
                begun++;
            }
        }
    }
    return (double)(at - begin) / 1e9;
}

/* The most connections of the open loop that wait for their reply at one time; one more counts as refused. */
#define MOST_OPEN 8192

/* Start one connection. False if the server's queue has no room for it. */
static int begin_connection(struct connection *connection, const struct sockaddr_un *address, int loop)
{
    connection->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (connection->fd < 0)
        die("socket");
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    connection->received = 0;
    if (connect(connection->fd, (const struct sockaddr *)address, sizeof *address) ||
        send(connection->fd, options.request, options.request_size, MSG_NOSIGNAL) != (ssize_t)options.request_size ||
        epoll_ctl(loop, EPOLL_CTL_ADD, connection->fd, &event)) {
        close(connection->fd);
        return 0;
    }
    return 1;
}

/* True once the reply is whole; a connection that ends before it, or gets another, counts as refused. */
static int end_connection(struct connection *connection)
{
    ssize_t count = recv(connection->fd, connection->reply + connection->received, REPLY_ROOM - connection->received, 0);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (count > 0 && !take(connection, (size_t)count) && connection->received < REPLY_ROOM)
        return 0;
    if (count <= 0 || connection->received < options.expect_size ||
        memcmp(connection->reply, options.expect, options.expect_size))
        refused++;
    reply_size = connection->received;
    close(connection->fd);
    return 1;
}

/* New connections at a fixed rate. A reply is timed from the moment its connection was due, so a server that stalls
 * does not slow its clients down, as it would not in earnest. */
static double open_loop(struct samples *samples)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(options.socket) >= sizeof address.sun_path)
        die("%s is too long", options.socket);
    strcpy(address.sun_path, options.socket);
    struct rlimit files = {MOST_OPEN + 64, MOST_OPEN + 64};
    if (setrlimit(RLIMIT_NOFILE, &files))
        die("setrlimit");
    struct connection *connections = allocate(MOST_OPEN * sizeof *connections), **idle = allocate(MOST_OPEN * sizeof *idle);
    size_t left = MOST_OPEN;
    for (size_t i = 0; i < MOST_OPEN; i++) {
        connections[i].reply = NULL;
        idle[i] = &connections[MOST_OPEN - 1 - i];
    }
    int loop = epoll_create1(EPOLL_CLOEXEC), timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, ready[256];
    if (loop < 0 || timer < 0 || epoll_ctl(loop, EPOLL_CTL_ADD, timer, &event))
        die("timerfd");
    uint64_t step = 1000000000u / options.rate, begin = now_ns(), end = deadline(begin), due = begin, at = begin;
    unsigned long begun = 0;
    while (left < MOST_OPEN || (begun < options.requests && due < end)) {
        for (; due <= now_ns() && begun < options.requests && due < end; due += step, begun++) {
            struct connection *connection = left ? idle[left - 1] : NULL;
            if (connection && !connection->reply)
                connection->reply = allocate(REPLY_ROOM);
            if (connection && begin_connection(connection, &address, loop)) {
                connection->sent_at = due;
                left--;
            } else
                refused++;
        }
        struct itimerspec next = {.it_value = {(time_t)(due / 1000000000u), (long)(due % 1000000000u)}};
        int more = begun < options.requests && due < end;
        if (more && timerfd_settime(timer, TFD_TIMER_ABSTIME, &next, NULL))
            die("timerfd_settime");
        int count = epoll_wait(loop, ready, sizeof ready / sizeof *ready, TIMEOUT_MSEC);
        if (!count)
            die("%s: %zu connections got no reply", options.socket, MOST_OPEN - left);
        for (int i = 0; i < count; i++) {
            struct connection *connection = ready[i].data.ptr;
            uint64_t expirations;
            if (!connection) {
                if (read(timer, &expirations, sizeof expirations) < 0 && errno != EAGAIN)
                    die("timerfd");
            } else if (end_connection(connection)) {
                samples_add(samples, (at = now_ns()) - connection->sent_at);
                idle[left++] = connection;
            }
        }
    }
    return (double)(at - begin) / 1e9;
}

extern char **environ;

static double spawn(struct samples *samples, char **argv)
{
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 0, options.request_path ? options.request_path : "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&files, 1, "/dev/null", O_WRONLY, 0);
    uint64_t begin = now_ns(), end = deadline(begin);
    for (unsigned long i = 0; i < options.requests && now_ns() < end; i++) {
        uint64_t started = now_ns();
        pid_t child;
        int status;
        errno = posix_spawnp(&child, argv[0], &files, NULL, argv, environ);
        if (errno)
            die("%s", argv[0]);
        if (waitpid(child, &status, 0) < 0)
            die("waitpid");
        samples_add(samples, now_ns() - started);
        errors += status != 0;
    }
    return (double)(now_ns() - begin) / 1e9;
}

static void set_rule(const char *text)
{
    if (!strcmp(text, "line"))
        options.rule = LINE;
    else if (!strcmp(text, "eof"))
        options.rule = END_OF_FILE;
    else if (!strcmp(text, "length32"))
        options.rule = LENGTH32;
    else if (!strncmp(text, "bytes:", 6)) {
        options.rule = BYTES;
        options.reply_bytes = number(text + 6, "reply");
    } else
        die("--reply %s is none of line, eof, length32, bytes:N", text);
}

static void read_options(int argc, char **argv)
{
    static const struct option known[] = {
        {"socket", 1, NULL, 's'},  {"request", 1, NULL, 'f'}, {"requests", 1, NULL, 'n'},    {"seconds", 1, NULL, 't'},
        {"warmup", 1, NULL, 'w'},  {"pace", 1, NULL, 'p'},    {"connections", 1, NULL, 'c'}, {"fresh", 0, NULL, 'F'},
        {"greeting", 0, NULL, 'g'}, {"reply", 1, NULL, 'r'},  {"expect", 1, NULL, 'e'},      {"cpu", 1, NULL, 'C'},
        {"rate", 1, NULL, 'R'},    {NULL, 0, NULL, 0},
    };
    for (int option; (option = getopt_long(argc, argv, "+", known, NULL)) != -1;) {
        switch (option) {
        case 's': options.socket = optarg; break;
        case 'f': options.request = read_file(options.request_path = optarg, &options.request_size); break;
        case 'n': options.requests = number(optarg, "requests"); break;
        case 't': options.seconds = atof(optarg); break;
        case 'w': options.warmup = number(optarg, "warmup"); break;
        case 'p': options.pace_usec = number(optarg, "pace"); break;
        case 'c': options.connections = number(optarg, "connections"); break;
        case 'R': options.rate = number(optarg, "rate"); break;
        case 'F': options.fresh = 1; break;
        case 'g': options.greeting = 1; break;
        case 'r': set_rule(optarg); break;
        case 'e': options.expect = optarg, options.expect_size = strlen(optarg); break;
        case 'C': options.cpu = atoi(optarg); break;
        default: fputs(usage, stderr), exit(2);
        }
    }
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return fputs(usage, stderr), 2;
    const char *mode = argv[1];
    read_options(argc - 1, argv + 1);
    char **program = argv + 1 + optind;
    int spawns = !strcmp(mode, "spawn");
    if (spawns ? !*program : !options.socket || !options.request)
        return fputs(usage, stderr), 2;
    options.fresh |= options.rule == END_OF_FILE;
    pin(options.cpu);

    struct samples samples;
    /* Where the end is a time, half a million of requests a second are room enough. */
    double room = options.seconds > 0 ? options.seconds * 5e5 : 1e9;
    samples_prepare(&samples, room < (double)options.requests ? (size_t)room : options.requests);
    double seconds;
    if (spawns)
        seconds = spawn(&samples, program);
    else if (!strcmp(mode, "latency"))
        seconds = latency(&samples);
    else if (!strcmp(mode, "throughput") && options.connections)
        seconds = throughput(&samples);
    else if (!strcmp(mode, "open") && options.rate)
        seconds = open_loop(&samples);
    else
        return fputs(usage, stderr), 2;
    printf("{\"seconds\":%.6f,\"per_second\":%.1f,\"errors\":%lu,\"refused\":%lu,\"reply_bytes\":%zu,", seconds,
           (double)samples.count / seconds, errors, refused, reply_size);
    samples_print(&samples);
    puts("}");
    return 0;
}
