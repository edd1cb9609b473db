/* libFuzzer's entry to the static client: a peer, and git on standard input, that say whatever the input has.
 *
 * Input: one byte that chooses the command and how the peer's bytes are cut, then for git-credential what git asks up to
 * an empty line, then the bytes of the peer. System calls on the socket and the streams are replaced; time passes by
 * itself, so that nothing waits. */
#define main remo_secret_main
#define clock_gettime fuzz_clock_gettime
#define close fuzz_close
#define connect fuzz_connect
#define fcntl fuzz_fcntl
#define getsockopt fuzz_getsockopt
#define isatty fuzz_isatty
#define nanosleep fuzz_nanosleep
#define poll fuzz_poll
#define read fuzz_read
#define recv fuzz_recv
#define send fuzz_send
#define socket fuzz_socket
#define write fuzz_write
#include "../../../remo_broker/secret/remo-secret.c"
#undef main

enum { SOCKET = 1000, CHUNKS = 4 };

static const uint8_t *peer, *git;
static size_t peer_left, git_left, chunk;
static int64_t clock_ms;
static bool terminal;

int clock_gettime(clockid_t clock, struct timespec *now) {
    (void)clock;
    clock_ms += 20;
    *now = (struct timespec){.tv_sec = clock_ms / 1000, .tv_nsec = clock_ms % 1000 * 1000000};
    return 0;
}

int nanosleep(const struct timespec *wanted, struct timespec *left) {
    (void)left;
    clock_ms += wanted->tv_sec * 1000 + wanted->tv_nsec / 1000000;
    return 0;
}

int socket(int domain, int type, int protocol) {
    return (void)domain, (void)type, (void)protocol, SOCKET;
}

int fcntl(int descriptor, int command, ...) {
    return (void)command, descriptor;
}

int close(int descriptor) {
    return descriptor == SOCKET ? 0 : (int)syscall(SYS_close, descriptor);
}

int connect(int descriptor, const struct sockaddr *address, socklen_t size) {
    return (void)descriptor, (void)address, (void)size, 0;
}

int getsockopt(int descriptor, int level, int name, void *value, socklen_t *size) {
    (void)descriptor, (void)level, (void)name;
    memset(value, 0, *size);
    return 0;
}

int isatty(int descriptor) {
    return (void)descriptor, terminal;
}

int poll(struct pollfd *wanted, nfds_t count, int timeout) {
    (void)count, (void)timeout;
    wanted->revents = wanted->events;
    return 1;
}

ssize_t send(int descriptor, const void *data, size_t size, int flags) {
    return (void)descriptor, (void)data, (void)flags, (ssize_t)size;
}

static ssize_t give(const uint8_t **from, size_t *left, void *to, size_t size) {
    size = size < *left ? size : *left;
    size = size < chunk ? size : chunk;
    memcpy(to, *from, size);
    *from += size;
    *left -= size;
    return (ssize_t)size;
}

ssize_t recv(int descriptor, void *to, size_t size, int flags) {
    (void)descriptor, (void)flags;
    return give(&peer, &peer_left, to, size);
}

ssize_t read(int descriptor, void *to, size_t size) {
    return descriptor == STDIN_FILENO ? give(&git, &git_left, to, size) : syscall(SYS_read, descriptor, to, size);
}

ssize_t write(int descriptor, const void *data, size_t size) {
    /* Every byte is looked at, so that the sanitizers see what would be written. */
    volatile uint8_t sum = 0;
    for (size_t i = 0; i < size; i++)
        sum = (uint8_t)(sum + ((const uint8_t *)data)[i]);
    return (void)descriptor, (ssize_t)size;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const size_t chunks[CHUNKS] = {SIZE_MAX, 1, 7, 65536};
    static char host[] = "--host=example.org";
    static char *const lines[][8] = {
        {"remo-secret", "get", "T", NULL},
        {"remo-secret", "get", "--field=a", "T", NULL},
        {"remo-secret", "list", NULL},
        {"remo-secret", "wait", "--timeout=1", NULL},
        {"remo-secret", "git-credential", "get", NULL},
        {"remo-secret", "git-credential", host, "--secret=T", "--username=u", "get", NULL},
        {"remo-secret", "get", "--wait=1", "T", NULL},
        {"remo-secret", "aws-credentials", "T", NULL},
    };
    if (size == 0 || data[0] >= sizeof lines / sizeof *lines * CHUNKS * 2)
        return -1;
    char *const *words = lines[data[0] / CHUNKS / 2];
    chunk = chunks[data[0] % CHUNKS];
    terminal = data[0] / CHUNKS % 2;
    peer = git = data + 1;
    peer_left = size - 1;
    git_left = 0;
    if (!strcmp(words[1], "git-credential")) {
        const uint8_t *end = memmem(git, peer_left, "\n\n", 2);
        git_left = end ? (size_t)(end - git) + 2 : peer_left;
        peer += git_left;
        peer_left -= git_left;
    }
    int count = 0;
    while (words[count])
        count++;
    const uint8_t *first = peer;
    size_t whole = peer_left;
    memset(&problem, 0, sizeof problem);
    problem.waited = -1;
    memset(&arguments, 0, sizeof arguments);
    arguments.timeout = arguments.wait = -1;
    timeout_text = wait_text = NULL;
    memset(&asked, 0, sizeof asked);
    out.descriptor = STDOUT_FILENO;
    clock_ms = 0;
    disconnect();
    setenv("REMO_BROKER_SOCKET", "/nowhere/x.sock", 1);
    size_t command;
    if (!parse(count, (char **)words, &command))
        abort();
    bool done = commands[command].run();
    flush();
    if (!done)
        report();
    wipe();
    /* The peer's bytes are the caller's: only the copy may have been decoded in place. */
    if (received > sizeof secret.answer || consumed > received || peer < first || peer_left > whole)
        abort();
    return 0;
}
