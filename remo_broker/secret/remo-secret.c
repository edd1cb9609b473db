/* The static front of remo-secret: get, list, wait, git-credential and aws-credentials without Python.
 *
 * Python's remo-secret is the reference. For a command line that this program does not know in full, it executes the
 * Python program with the same arguments; what it does itself, it does byte for byte as Python does. A table of cases
 * in tests/process/static_client is run against both.
 *
 * It reads answers of a peer that may be hostile, so:
 * - no heap and no recursion; every answer is in one fixed buffer;
 * - `struct cursor` is the only thing that reads it, and checks the end before every byte;
 * - a value is decoded in place, which never lengthens it, and is wiped before the program ends.
 *
 * No manifest, no TOML, no network and no decision about who gets what belong in here.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifndef REMO_VERSION
#define REMO_VERSION "unknown"
#endif
#define PROTOCOL_VERSION "2"
#define SOCKET_DIR "/run/remo-broker"

enum {
    MAX_MESSAGE = 64 * 1024,      /* one line of the protocol, newline included; also what git may ask */
    MAX_DEPTH = 512,              /* of a reply: MAX_REPLY_DEPTH in protocol/shared_limits.py */
    MAX_INTEGER = 4300,           /* digits that Python reads */
    MAX_NAME = 128,               /* of a secret */
    MAX_USER = 64,                /* the name of a user or group that is shown, NUL included */
    MAX_PROJECT = 64,             /* its name */
    MAX_LISTED = 20,              /* names in one error message */
    MAX_REQUEST = 8192,           /* of ours: a name, every byte of it as an escape of six */
    MAX_SENT = 1024,              /* of a name on the command line; Python takes longer ones */
    MAX_HOSTS = 64,               /* pairs of --host and --secret; Python takes a command line with more */
    LONGEST_SOCKET_PATH = 107,
    TIMEOUT_MS = 30 * 1000,
    DEFAULT_WAIT_SECONDS = 15,
    LONGEST_WAIT_SECONDS = 86400,
    FIRST_ANSWER_MS = 1000,
    POLL_MS = 100,
    BACKLOG_RETRY_MS = 10,
    FIRST_ORDINARY_UID = 1000,
};

enum status {
    EXIT_DENIED = 3,
    EXIT_NOT_FOUND = 4,
    EXIT_UNREACHABLE = 5,
    EXIT_RATE_LIMITED = 6,
    EXIT_USAGE = 2,
    EXIT_INTERRUPTED = 130,
};

struct span {
    char *at;
    size_t size;
};

/* What may hold a secret: wiped at the end, locked where that is allowed, never dumped. */
static struct {
    char answer[2 * MAX_MESSAGE]; /* a line, and what came with it */
    char asked[MAX_MESSAGE];      /* what git says on standard input */
} secret __attribute__((aligned(4096)));

/* Why the program fails: `messages` has the words. */
enum kind {
    BAD_REPLY, MISSING, WRONG_TYPE, OLD_BROKER, NEW_BROKER, REFUSED, UNKNOWN_OP, LOST, TIMED_OUT, TOO_LONG, ABSENT, UNSEEN,
    DIRECTORY, NO_SOCKET, FORBIDDEN, REPLACED, NO_LISTENER, NO_CONNECTION, UNTRUSTED, NO_RUN_DIRECTORY, SHUT_RUN_DIRECTORY,
    NO_PROJECT_SOCKET, SEVERAL_SOCKETS, HOST_SOCKET, NOT_READY, NO_BUNDLE, NO_FIELD, CONTROL_CHARACTERS, GIT_BINARY,
    GIT_NO_PASSWORD, GIT_LINE_BREAK, GIT_KEY_TWICE, NO_AWS_KEY, INPUT, OUTPUT,
};

/* And what belongs to it. Spans point into `secret` or the command line. */
static struct {
    enum kind kind;
    enum status status;
    bool temporary;    /* waiting may help */
    bool no_snapshot;  /* the broker is up but empty */
    bool is_named;     /* a helper's caller hides which secret it asked for */
    long number;       /* errno, or a uid */
    long waited;       /* seconds, or -1 */
    struct stat found; /* the socket or directory */
    struct span text;
    struct span host; /* that git asked for */
    const char *name; /* of a secret, or of a field of the reply */
    const char *type; /* that the field should have */
} problem = {.waited = -1};

static struct {
    const char *socket;
    const char *operand;
    const char *field;
    const char *username;
    char *hosts[MAX_HOSTS];
    const char *secrets[MAX_HOSTS];
    size_t host_count, secret_count;
    long timeout, wait; /* seconds, or -1 */
} arguments = {.timeout = -1, .wait = -1};

static const char *socket_path;
static int connection = -1;
static size_t received; /* bytes in secret.answer */
static size_t consumed; /* of these, bytes of lines that were read */

/* --- small things ------------------------------------------------------------------------------------------------- */

static int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void sleep_ms(int64_t ms) {
    struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    if (ms > 0)
        nanosleep(&left, NULL);
}

static bool fail(enum kind kind, enum status status) {
    problem.kind = kind;
    problem.status = status;
    return false;
}

static struct span text_span(const char *text) {
    return (struct span){(char *)text, strlen(text)};
}

static bool bad_reply(const char *what) {
    problem.text = text_span(what);
    return fail(BAD_REPLY, EXIT_FAILURE);
}

/* A field of the reply is missing, or is not of its type. */
static bool bad_field(enum kind kind, const char *name, const char *type) {
    problem.name = name;
    problem.type = type;
    return fail(kind, EXIT_FAILURE);
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static bool is_secret_name(const char *text, size_t size) {
    if (size == 0 || size > MAX_NAME)
        return false;
    for (size_t i = 0; i < size; i++) {
        char one = text[i];
        if (!((one >= 'A' && one <= 'Z') || (one >= 'a' && one <= 'z') || (one >= '0' && one <= '9') || one == '_'))
            return false;
    }
    return true;
}

static bool is_project(const char *text, size_t size) {
    for (size_t i = 0; i < size; i++) {
        char one = text[i];
        bool inner = i > 0 && (one == '_' || one == '-');
        if (!((one >= 'a' && one <= 'z') || (one >= '0' && one <= '9') || inner))
            return false;
    }
    return size > 0 && size <= MAX_PROJECT;
}

static bool is_host_socket(const char *path) {
    const char *name = base_name(path);
    return !strcmp(name, "admin.sock") || !strcmp(name, "status.sock") || !strcmp(name, "credentials.sock");
}

/* --- characters ----------------------------------------------------------------------------------------------------- */

static bool is_surrogate(uint32_t code) {
    return code >= 0xd800 && code < 0xe000;
}

/* The character at `at`, and its bytes in `*width`. What is not UTF-8 is a byte, as the low surrogate that Python puts in
 * its place. With `halves`, in what an answer had as escapes, a surrogate's three bytes are a character too. */
static uint32_t character(const char *at, size_t left, size_t *width, bool halves) {
    const unsigned char *byte = (const unsigned char *)at;
    unsigned first = byte[0];
    size_t wanted = first < 0x80 ? 1 : first >= 0xc2 && first < 0xe0 ? 2 : first >= 0xe0 && first < 0xf0 ? 3
                    : first >= 0xf0 && first < 0xf5 ? 4 : 0;
    *width = 1;
    if (wanted == 1)
        return first;
    uint32_t code = wanted == 2 ? first & 0x1f : wanted == 3 ? first & 0x0f : first & 0x07;
    if (wanted == 0 || wanted > left)
        return 0xdc00 + first;
    for (size_t i = 1; i < wanted; i++) {
        if ((byte[i] & 0xc0) != 0x80)
            return 0xdc00 + first;
        code = code << 6 | (byte[i] & 0x3f);
    }
    if ((wanted == 3 && code < 0x800) || (wanted == 4 && (code < 0x10000 || code > 0x10ffff)))
        return 0xdc00 + first;
    if (is_surrogate(code) && !halves)
        return 0xdc00 + first;
    *width = wanted;
    return code;
}

/* Control, format, separating and private characters, as in remo_broker.cli.text. */
static const struct {
    uint32_t first, last;
} misleading[] = {
    {0x00, 0x1f},       {0x7f, 0xa0},       {0xad, 0xad},       {0x600, 0x605},     {0x61c, 0x61c},
    {0x6dd, 0x6dd},     {0x70f, 0x70f},     {0x890, 0x891},     {0x8e2, 0x8e2},     {0x1680, 0x1680},
    {0x180e, 0x180e},   {0x2000, 0x200f},   {0x2028, 0x202f},   {0x205f, 0x206f},   {0x3000, 0x3000},
    {0xd800, 0xf8ff},   {0xfeff, 0xfeff},   {0xfff0, 0xfffb},   {0xfffe, 0xffff},   {0x110bd, 0x110bd},
    {0x110cd, 0x110cd}, {0x13430, 0x1343f}, {0x1bca0, 0x1bca3}, {0x1d173, 0x1d17a}, {0xe0000, 0x10ffff},
};

static bool is_plain(uint32_t code) {
    for (size_t i = 0; i < sizeof misleading / sizeof *misleading; i++)
        if (code >= misleading[i].first && code <= misleading[i].last)
            return false;
    return true;
}

/* Whether a terminal shows `content` without obeying it. */
static bool is_text(struct span content) {
    for (size_t i = 0, width; i < content.size; i += width) {
        uint32_t code = character(content.at + i, content.size - i, &width, false);
        if (!is_plain(code) && code != '\t' && code != '\r' && code != '\n')
            return false;
    }
    return true;
}

/* --- writing ------------------------------------------------------------------------------------------------------ */

static bool write_all(int descriptor, const char *at, size_t size) {
    while (size > 0) {
        ssize_t written = write(descriptor, at, size);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return false;
        at += written;
        size -= (size_t)written;
    }
    return true;
}

/* What is written to one stream is gathered here, and wiped when it is out. */
static struct {
    int descriptor;
    size_t used;
    int error;
    char bytes[1024];
} out = {.descriptor = STDOUT_FILENO};

static void wipe(void) {
    explicit_bzero(&secret, sizeof secret);
    explicit_bzero(out.bytes, sizeof out.bytes);
}

static void interrupted(int number) {
    (void)number;
    wipe();
    _exit(EXIT_INTERRUPTED);
}

static void flush(void) {
    if (out.error == 0 && !write_all(out.descriptor, out.bytes, out.used))
        out.error = errno;
    explicit_bzero(out.bytes, out.used);
    out.used = 0;
}

static void put(const char *at, size_t size) {
    while (size > 0) {
        if (out.used == sizeof out.bytes)
            flush();
        size_t some = size < sizeof out.bytes - out.used ? size : sizeof out.bytes - out.used;
        memcpy(out.bytes + out.used, at, some);
        out.used += some;
        at += some;
        size -= some;
    }
}

static void say(const char *text) {
    put(text, strlen(text));
}

/* Of a number that is not negative. */
static const char *decimal(long number, char digits[24]) {
    size_t at = 23;
    digits[at] = 0;
    do
        digits[--at] = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    return digits + at;
}

static void say_number(long number) {
    char digits[24];
    say(decimal(number, digits));
}

/* Text from elsewhere, for people: what could mislead them or their terminal is escaped as Python escapes it. */
static void say_characters(struct span text, bool halves) {
    static const char hexadecimal[] = "0123456789abcdef";
    for (size_t i = 0, width; i < text.size; i += width) {
        uint32_t code = character(text.at + i, text.size - i, &width, halves);
        if (is_plain(code)) {
            put(text.at + i, width);
        } else if (code == '\t' || code == '\n' || code == '\r') {
            say(code == '\t' ? "\\t" : code == '\n' ? "\\n" : "\\r");
        } else {
            int digits = code < 0x100 ? 2 : code < 0x10000 ? 4 : 8;
            say(digits == 2 ? "\\x" : digits == 4 ? "\\u" : "\\U");
            while (digits-- > 0)
                put(&hexadecimal[code >> (4 * digits) & 15], 1);
        }
    }
}

static void say_escaped(struct span text) {
    say_characters(text, false);
}

static void say_text(const char *text) {
    say_escaped((struct span){(char *)text, strlen(text)});
}

/* The words of the GNU C library, which Python's users read, where musl has others. */
static void say_error(int number) {
    switch (number) {
    case EIO: say("Input/output error"); break;
    case ELOOP: say("Too many levels of symbolic links"); break;
    case ENAMETOOLONG: say("File name too long"); break;
    case EPROTOTYPE: say("Protocol wrong type for socket"); break;
    default: say(strerror(number));
    }
}

/* --- JSON --------------------------------------------------------------------------------------------------------- */

struct cursor {
    char *at, *end;
};

/* The byte at the cursor; -1 at the end, so that no caller can step over it. */
static int peek(const struct cursor *json) {
    return json->at < json->end ? (unsigned char)*json->at : -1;
}

static bool take(struct cursor *json, char wanted) {
    if (peek(json) != (unsigned char)wanted)
        return false;
    json->at++;
    return true;
}

static void blanks(struct cursor *json) {
    while (peek(json) == ' ' || peek(json) == '\t' || peek(json) == '\n' || peek(json) == '\r')
        json->at++;
}

static bool word(struct cursor *json, const char *wanted) {
    size_t size = strlen(wanted);
    if ((size_t)(json->end - json->at) < size || memcmp(json->at, wanted, size) != 0)
        return false;
    json->at += size;
    return true;
}

static bool is_digit(int byte) {
    return byte >= '0' && byte <= '9';
}

static size_t digits(struct cursor *json) {
    char *first = json->at;
    while (is_digit(peek(json)))
        json->at++;
    return (size_t)(json->at - first);
}

/* A number as JSON and Python have it. */
static bool number(struct cursor *json) {
    take(json, '-');
    if (word(json, "Infinity"))
        return true;
    size_t whole = peek(json) == '0' ? (size_t)take(json, '0') : digits(json);
    if (whole == 0)
        return false;
    struct cursor more = *json;
    bool integer = true;
    if (take(&more, '.') && digits(&more) > 0) {
        *json = more;
        integer = false;
    }
    more = *json;
    if (take(&more, 'e') || take(&more, 'E')) {
        if (!take(&more, '+'))
            take(&more, '-');
        if (digits(&more) > 0) {
            *json = more;
            integer = false;
        }
    }
    return !integer || whole <= MAX_INTEGER;
}

static int hexadecimal(int byte) {
    return is_digit(byte)                 ? byte - '0'
           : byte >= 'a' && byte <= 'f' ? byte - 'a' + 10
           : byte >= 'A' && byte <= 'F' ? byte - 'A' + 10
                                        : -1;
}

/* The four digits of an escape; the cursor stands behind its `u`. */
static bool four_digits(struct cursor *json, uint32_t *code) {
    *code = 0;
    for (int i = 0; i < 4; i++) {
        int digit = hexadecimal(peek(json));
        if (digit < 0)
            return false;
        *code = *code << 4 | (uint32_t)digit;
        json->at++;
    }
    return true;
}

/* The next character of a string, the cursor behind its opening quote. False at the closing quote, and at a fault, where
 * the cursor then is at the end. Where the escapes of a surrogate pair follow each other, they are one character. */
static bool next_character(struct cursor *json, uint32_t *code) {
    static const char letters[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    struct cursor from = *json, second;
    size_t width;
    int byte = peek(json);
    if (byte == '"')
        return false;
    json->at = json->end; /* until it proves to be a character */
    if (byte < 0x20)
        return false;
    if (byte != '\\') {
        *code = character(from.at, (size_t)(from.end - from.at), &width, false);
        if (is_surrogate(*code)) /* as bytes it is not UTF-8 */
            return false;
        json->at = from.at + width;
        return true;
    }
    from.at++;
    byte = peek(&from);
    if (byte < 0)
        return false;
    from.at++;
    if (byte != 'u') {
        const char *found = memchr(letters, byte, sizeof letters - 1);
        if (!found)
            return false;
        *code = (unsigned char)meant[found - letters];
    } else {
        uint32_t low;
        if (!four_digits(&from, code))
            return false;
        second = from;
        if (*code >= 0xd800 && *code < 0xdc00 && take(&second, '\\') && take(&second, 'u') &&
            four_digits(&second, &low) && low >= 0xdc00 && low < 0xe000) {
            *code = 0x10000 + ((*code - 0xd800) << 10 | (low - 0xdc00));
            from = second;
        }
    }
    *json = from;
    return true;
}

/* Steps over a string, from its opening quote to behind its closing one. */
static bool string(struct cursor *json) {
    uint32_t code;
    if (!take(json, '"'))
        return false;
    while (next_character(json, &code))
        ;
    return take(json, '"');
}

static size_t utf8(uint32_t code, char *to) {
    if (code < 0x80) {
        to[0] = (char)code;
        return 1;
    }
    size_t width = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = width - 1; i > 0; i--, code >>= 6)
        to[i] = (char)(0x80 | (code & 0x3f));
    to[0] = (char)((width == 2 ? 0xc0 : width == 3 ? 0xe0 : 0xf0) | code);
    return width;
}

/* A string of an answer that was checked, in UTF-8 where it lay: no escape is shorter than what it stands for. */
static struct span decoded(struct span text) {
    struct cursor json = {text.at + 1, text.at + text.size};
    char *to = text.at;
    uint32_t code;
    while (next_character(&json, &code))
        to += utf8(code, to);
    return (struct span){text.at, (size_t)(to - text.at)};
}

/* Whether a string that was checked is `wanted`, whatever of it is escaped. */
static bool string_is(struct span text, struct span wanted) {
    struct cursor json = {text.at + 1, text.at + text.size};
    char bytes[4];
    uint32_t code;
    while (next_character(&json, &code)) {
        size_t width = utf8(code, bytes);
        if (width > wanted.size || memcmp(bytes, wanted.at, width) != 0)
            return false;
        wanted.at += width;
        wanted.size -= width;
    }
    return wanted.size == 0;
}

static bool has_surrogate(struct span text) {
    struct cursor json = {text.at + 1, text.at + text.size};
    uint32_t code;
    while (next_character(&json, &code))
        if (is_surrogate(code))
            return true;
    return false;
}

/* Steps over one value of any kind. Each level open is a bit: whether it is an object. */
static bool value(struct cursor *json) {
    bool objects[MAX_DEPTH];
    size_t depth = 0;
    for (;;) {
        /* A value, or the first thing in what was opened. */
        blanks(json);
        if (take(json, '{') || take(json, '[')) {
            if (depth == MAX_DEPTH)
                return false;
            objects[depth++] = json->at[-1] == '{';
            blanks(json);
            if (!take(json, objects[depth - 1] ? '}' : ']')) {
                if (objects[depth - 1] && (blanks(json), !string(json) || (blanks(json), !take(json, ':'))))
                    return false;
                continue;
            }
            depth--;
        } else if (peek(json) == '"' ? !string(json)
                                     : !word(json, "true") && !word(json, "false") && !word(json, "null") &&
                                           !word(json, "NaN") && !number(json)) {
            return false;
        }
        /* What follows a value: the ends of what it is in, or a comma. */
        for (;;) {
            if (depth == 0)
                return true;
            blanks(json);
            if (take(json, ',')) {
                if (objects[depth - 1]) {
                    blanks(json);
                    if (!string(json) || (blanks(json), !take(json, ':')))
                        return false;
                }
                break;
            }
            if (!take(json, objects[depth - 1] ? '}' : ']'))
                return false;
            depth--;
        }
    }
}

/* Whether `*text` is one JSON object and nothing else; the blanks around it are cut off. What follows relies on it. */
static bool is_object(struct span *text) {
    struct cursor json = {text->at, text->at + text->size};
    blanks(&json);
    text->at = json.at;
    if (peek(&json) != '{' || !value(&json))
        return false;
    text->size = (size_t)(json.at - text->at);
    blanks(&json);
    return json.at == json.end;
}

/* One member after the other of an object or array that was checked; an array's have no name. Begin with an empty
 * `*item`. The spans of strings have their quotes. */
static bool next_member(struct span whole, struct span *name, struct span *item) {
    struct cursor json = {item->at ? item->at + item->size : whole.at + 1, whole.at + whole.size};
    blanks(&json);
    if (item->at && !take(&json, ','))
        return false;
    blanks(&json);
    *name = (struct span){json.at, 0};
    if (*whole.at == '{') {
        if (!string(&json))
            return false;
        name->size = (size_t)(json.at - name->at);
        blanks(&json);
        take(&json, ':');
        blanks(&json);
    }
    item->at = json.at;
    if (!value(&json))
        return false;
    item->size = (size_t)(json.at - item->at);
    return true;
}

/* The last member of that name, as Python has it; no `at` where there is none. */
static struct span member(struct span object, struct span wanted) {
    struct span name, item = {0}, found = {0};
    while (next_member(object, &name, &item))
        if (string_is(name, wanted))
            found = item;
    return found;
}

/* Whether a later member of the object has the same name: of these, the last one counts. */
static bool is_overridden(struct span object, struct span name, struct span item) {
    struct span other;
    while (next_member(object, &other, &item)) {
        struct cursor one = {name.at + 1, name.at + name.size}, two = {other.at + 1, other.at + other.size};
        uint32_t first = 0, second = 0;
        bool more, too;
        do {
            more = next_character(&one, &first);
            too = next_character(&two, &second);
        } while (more && too && first == second);
        if (!more && !too)
            return true;
    }
    return false;
}

static struct span field(struct span object, const char *name) {
    return member(object, text_span(name));
}

static bool is_word(struct span item, const char *wanted) {
    return item.at && item.size == strlen(wanted) && memcmp(item.at, wanted, item.size) == 0;
}

static bool is_string(struct span item) {
    return item.at && *item.at == '"';
}

static bool is_boolean(struct span item) {
    return is_word(item, "true") || is_word(item, "false");
}

static bool is_integer(struct span item) {
    if (!item.at)
        return false;
    struct cursor json = {item.at, item.at + item.size};
    take(&json, '-');
    return digits(&json) > 0 && json.at == json.end;
}

static bool is_null_or(struct span item, bool (*is)(struct span)) {
    return !item.at || is_word(item, "null") || is(item);
}

static bool require(struct span object, const char *name, const char *type, bool (*is)(struct span)) {
    struct span item = field(object, name);
    if (!item.at)
        return bad_field(MISSING, name, NULL);
    return is(item) || bad_field(WRONG_TYPE, name, type);
}

/* --- the connection ----------------------------------------------------------------------------------------------- */

static bool lost(void) {
    return fail(LOST, EXIT_UNREACHABLE);
}

static void disconnect(void) {
    if (connection >= 0)
        close(connection);
    connection = -1;
    explicit_bzero(secret.answer, received);
    received = consumed = 0;
}

/* Connecting failed with the error `number`: why, as far as the socket itself shows it. */
static bool unreachable(int number) {
    problem.number = number;
    enum kind kind = NO_CONNECTION;
    if (strlen(socket_path) > LONGEST_SOCKET_PATH)
        kind = TOO_LONG;
    else if (number == ENOENT) /* it may exist by now: the broker replaces a socket without a listener */
        kind = ABSENT;
    else if (stat(socket_path, &problem.found) < 0)
        kind = (problem.number = errno) == ENOENT ? ABSENT : UNSEEN;
    else if (!S_ISSOCK(problem.found.st_mode))
        kind = S_ISDIR(problem.found.st_mode) ? DIRECTORY : NO_SOCKET;
    else if (number == EACCES || number == EPERM)
        kind = FORBIDDEN;
    else if (number == ECONNREFUSED) /* without a link the inode lives on in this mount only */
        kind = problem.found.st_nlink == 0 ? REPLACED : NO_LISTENER;
    problem.temporary = kind == ABSENT || kind == NO_LISTENER;
    return fail(kind, EXIT_UNREACHABLE);
}

/* Waits until the socket is ready for `events`. */
static bool ready_for(short events, int64_t deadline) {
    for (;;) {
        int64_t left = deadline - now_ms();
        if (left <= 0)
            return fail(TIMED_OUT, EXIT_UNREACHABLE);
        struct pollfd wanted = {.fd = connection, .events = events};
        int ready = poll(&wanted, 1, left > INT_MAX ? INT_MAX : (int)left);
        if (ready > 0)
            return true;
        if (ready < 0 && errno != EINTR)
            return lost();
    }
}

/* --- users and groups --------------------------------------------------------------------------------------------- */

/* An entry of /etc/passwd or /etc/group: where `wanted` is a name, its number; otherwise the name of `*id`. Not
 * getpwuid(3), which takes memory from the heap and, in the static GNU C library, loads modules. */
static bool look_up(const char *file, const char *wanted, long *id, char name[MAX_USER]) {
    char chunk[4096], line[MAX_USER + 64]; /* as much of a line as matters */
    size_t used = 0;
    ssize_t size;
    bool found = false, whole = false;
    int descriptor = open(file, O_RDONLY | O_CLOEXEC);
    while (descriptor >= 0 && !found && !whole) {
        size = read(descriptor, chunk, sizeof chunk);
        if (size <= 0) { /* the last line need not have its end */
            whole = true;
            chunk[0] = '\n';
            size = 1;
        }
        for (ssize_t at = 0; at < size && !found; at++) {
            if (chunk[at] != '\n') {
                if (used < sizeof line - 1)
                    line[used++] = chunk[at];
                continue;
            }
            line[used] = 0;
            used = 0;
            char *password = strchr(line, ':'), *number = password ? strchr(password + 1, ':') : NULL;
            if (!number || !is_digit(number[1]) || password == line || password - line >= MAX_USER)
                continue;
            *password = 0;
            long theirs = strtol(number + 1, NULL, 10);
            found = wanted ? !strcmp(line, wanted) : theirs == *id;
            if (found) {
                *id = theirs;
                memcpy(name, line, strlen(line) + 1);
            }
        }
    }
    if (descriptor >= 0)
        close(descriptor);
    return found;
}

/* The uid that stands for all users outside this user namespace; -1 where there are none. */
static long unmapped_uid(void) {
    char text[64];
    int descriptor = open("/proc/self/uid_map", O_RDONLY | O_CLOEXEC);
    ssize_t size = descriptor < 0 ? -1 : read(descriptor, text, sizeof text - 1);
    if (descriptor >= 0)
        close(descriptor);
    if (size < 0)
        return -1;
    text[size] = 0;
    char *at = text;
    long inside = strtol(at, &at, 10), outside = strtol(at, &at, 10);
    if (inside == 0 && outside == 0 && strtoll(at, &at, 10) == 4294967295 && at[strspn(at, "\n ")] == 0)
        return -1; /* the first namespace maps every uid to itself */
    descriptor = open("/proc/sys/kernel/overflowuid", O_RDONLY | O_CLOEXEC);
    size = descriptor < 0 ? -1 : read(descriptor, text, sizeof text - 1);
    if (descriptor >= 0)
        close(descriptor);
    if (size <= 0)
        return -1;
    text[size] = 0;
    return strtol(text, NULL, 10);
}

/* Whether the broker or systemd listens, as remo_broker.client.trust has it. */
static bool is_trusted(void) {
    struct ucred peer = {0};
    socklen_t size = sizeof peer;
    if (getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
        return false;
    if (peer.uid == 0 || peer.uid == geteuid())
        return true;
    const char *given = getenv("REMO_BROKER_UID");
    char digits[24], name[MAX_USER];
    long id = problem.number = (long)peer.uid;
    if ((given && !strcmp(given, decimal(id, digits))) || id == unmapped_uid())
        return true;
    if (look_up("/etc/passwd", "remo-broker", &id, name))
        return id == (long)peer.uid;
    return peer.uid < FIRST_ORDINARY_UID;
}

static bool connect_to(const char *path, int64_t deadline) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t size = strlen(path);
    if (size > LONGEST_SOCKET_PATH)
        return unreachable(ENAMETOOLONG);
    memcpy(address.sun_path, path, size);
    int made = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (made < 0)
        return unreachable(errno);
    /* Not among the standard streams, which the parent process may have closed: it would take what is printed. */
    connection = fcntl(made, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    close(made);
    if (connection < 0)
        return unreachable(errno);
    while (connect(connection, (struct sockaddr *)&address, sizeof address) < 0) {
        int number = errno;
        if (number != EAGAIN) {
            disconnect();
            return unreachable(number);
        }
        if (now_ms() > deadline) {
            disconnect();
            return fail(TIMED_OUT, EXIT_UNREACHABLE);
        }
        sleep_ms(BACKLOG_RETRY_MS);
    }
    if (is_trusted())
        return true;
    disconnect();
    return fail(UNTRUSTED, EXIT_UNREACHABLE);
}

static bool send_all(const char *at, size_t size, int64_t deadline) {
    while (size > 0) {
        if (!ready_for(POLLOUT, deadline))
            return false;
        ssize_t sent = send(connection, at, size, MSG_NOSIGNAL);
        if (sent < 0 && (errno == EPIPE || errno == ECONNRESET))
            return true; /* it may have answered before it closed */
        if (sent < 0 && errno != EAGAIN && errno != EINTR)
            return lost();
        if (sent > 0) {
            at += sent;
            size -= (size_t)sent;
        }
    }
    return true;
}

/* The only reader of what the peer sends: one line without its newline, at most MAX_MESSAGE with it. */
static bool read_line(struct span *line, int64_t deadline) {
    if (consumed > 0) {
        memmove(secret.answer, secret.answer + consumed, received - consumed);
        received -= consumed;
        consumed = 0;
    }
    size_t searched = 0;
    for (;;) {
        char *newline = memchr(secret.answer + searched, '\n', received - searched);
        size_t size = newline ? (size_t)(newline - secret.answer) + 1 : received;
        if (size > MAX_MESSAGE || (!newline && size == MAX_MESSAGE))
            return bad_reply("it is longer than 64 KiB");
        if (newline) {
            *line = (struct span){secret.answer, size - 1};
            consumed = size;
            return true;
        }
        searched = received;
        if (!ready_for(POLLIN, deadline))
            return false;
        ssize_t some = recv(connection, secret.answer + received, sizeof secret.answer - received, 0);
        if (some == 0 || (some < 0 && errno == ECONNRESET))
            return lost();
        if (some < 0 && errno != EAGAIN && errno != EINTR)
            return lost();
        if (some > 0)
            received += (size_t)some;
    }
}

/* --- requests ----------------------------------------------------------------------------------------------------- */

static enum status status_of(struct span code) {
    static const struct {
        const char *code;
        enum status status;
    } table[] = {
        {"denied", EXIT_DENIED},
        {"peer_unexpected", EXIT_DENIED},
        {"not_found", EXIT_NOT_FOUND},
        {"rate_limited", EXIT_RATE_LIMITED},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (string_is(code, text_span(table[i].code)))
            return table[i].status;
    return EXIT_FAILURE;
}

/* An answer that is no success. */
static bool refused(struct span answer) {
    if (!is_word(field(answer, "ok"), "false"))
        return bad_field(MISSING, "ok", NULL);
    if (!require(answer, "code", "str", is_string) || !require(answer, "message", "str", is_string))
        return false;
    struct span reason = field(answer, "reason"), retry = field(answer, "retry_after_seconds");
    if (!is_null_or(reason, is_string))
        return bad_field(WRONG_TYPE, "reason", "str");
    if (!is_null_or(retry, is_integer))
        return bad_field(WRONG_TYPE, "retry_after_seconds", "int");
    enum status status = status_of(field(answer, "code"));
    bool unknown_op = is_string(reason) && string_is(reason, text_span("unknown_op"));
    problem.temporary = status == EXIT_RATE_LIMITED;
    problem.no_snapshot = is_string(reason) && string_is(reason, text_span("no_snapshot"));
    problem.text = decoded(field(answer, "message"));
    return fail(unknown_op ? UNKNOWN_OP : REFUSED, status);
}

static bool read_answer(struct span *answer, int64_t deadline) {
    if (!read_line(answer, deadline))
        return false;
    if (!is_object(answer))
        return bad_reply("not a JSON object");
    return is_word(field(*answer, "ok"), "true") || refused(*answer);
}

static bool check_version(struct span answer) {
    struct span theirs = field(answer, "protocol_version");
    if (!is_integer(theirs))
        return bad_reply("'protocol_version' is missing or not an integer");
    if (is_word(theirs, PROTOCOL_VERSION))
        return true;
    problem.text = is_word(theirs, "-0") ? (struct span){theirs.at + 1, 1} : theirs;
    bool older = *problem.text.at == '-' || (problem.text.size == 1 && *problem.text.at < *PROTOCOL_VERSION);
    return fail(older ? OLD_BROKER : NEW_BROKER, EXIT_FAILURE);
}

/* One request on the connection, which is opened, and its version asked for in the same write, where there is none. */
static bool ask_once(const char *request, struct span *answer, int64_t timeout) {
    static const char ping[] = "{\"op\":\"ping\"}\n";
    char data[sizeof ping + MAX_REQUEST];
    size_t size = 0;
    int64_t deadline = now_ms() + timeout;
    bool greet = connection < 0;
    problem.temporary = problem.no_snapshot = problem.is_named = false;
    if (greet) {
        if (!connect_to(socket_path, deadline))
            return false;
        memcpy(data, ping, sizeof ping - 1);
        size = sizeof ping - 1;
    }
    memcpy(data + size, request, strlen(request));
    if (!send_all(data, size + strlen(request), deadline))
        return false;
    if (greet && (!read_answer(answer, deadline) || !check_version(*answer)))
        return false;
    return read_answer(answer, deadline);
}

static bool ask(const char *request, struct span *answer, int64_t timeout) {
    bool reused = connection >= 0;
    if (ask_once(request, answer, timeout))
        return true;
    /* A broker that restarted has closed what was open; asking again is what anybody would do by hand. */
    if (reused && problem.kind == LOST) {
        disconnect();
        return ask_once(request, answer, timeout);
    }
    return false;
}

/* A byte of a JSON string as Python writes it; its size. */
static size_t escape(char byte, char to[6]) {
    static const char escapes[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt", hexadecimals[] = "0123456789abcdef";
    const char *found = byte ? strchr(escapes, byte) : NULL;
    to[0] = found || (unsigned char)byte < 0x20 ? '\\' : byte;
    if (*to == byte && !found)
        return 1;
    to[1] = found ? letters[found - escapes] : 'u';
    if (found)
        return 2;
    memcpy(to + 2, (char[]){'0', '0', hexadecimals[byte >> 4], hexadecimals[byte & 15]}, 4);
    return 6;
}

/* Of the secret that was fetched last; no string where it does not expire. */
static struct span expires_at;

static bool get_secret(const char *name, struct span *content, bool *binary) {
    char request[MAX_REQUEST] = "{\"op\":\"get\",\"name\":\"";
    size_t size = strlen(request);
    struct span answer;
    for (; *name; name++)
        size += escape(*name, request + size);
    memcpy(request + size, "\"}\n", 4);
    if (!ask(request, &answer, TIMEOUT_MS))
        return false;
    *binary = field(answer, "value_b64").at != NULL;
    const char *where = *binary ? "value_b64" : "value";
    if (!require(answer, where, "str", is_string) || !require(answer, "ttl_seconds", "int", is_integer) ||
        !require(answer, "generation", "int", is_integer))
        return false;
    expires_at = field(answer, "expires_at");
    if (!is_null_or(expires_at, is_string))
        return bad_field(WRONG_TYPE, "expires_at", "str");
    if (is_string(expires_at) && has_surrogate(expires_at))
        return bad_reply("'expires_at' is not text");
    struct span found = field(answer, where);
    if (!*binary && has_surrogate(found))
        return bad_reply("'value' is not text");
    *content = decoded(found);
    return true;
}

/* In place: three bytes for four letters. */
static bool from_base64(struct span *content) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t size = content->size, padding = 0, written = 0;
    uint32_t bits = 0;
    if (size % 4 != 0)
        return bad_reply("'value_b64' is not base64");
    while (padding < 2 && padding < size && content->at[size - 1 - padding] == '=')
        padding++;
    for (size_t i = 0; i < size; i++) {
        const char *found = content->at[i] ? strchr(letters, content->at[i]) : NULL;
        if (!found && i < size - padding)
            return bad_reply("'value_b64' is not base64");
        bits = bits << 6 | (found ? (uint32_t)(found - letters) : 0);
        if (i % 4 == 3) {
            content->at[written++] = (char)(bits >> 16);
            content->at[written++] = (char)(bits >> 8);
            content->at[written++] = (char)bits;
        }
    }
    content->size = written - padding;
    return true;
}

/* A short string of an answer, decoded into `to`, which has `room` bytes; 0 where it is longer. */
static size_t short_string(struct span text, char *to, size_t room) {
    struct cursor json = {text.at + 1, text.at + text.size};
    size_t size = 0;
    uint32_t code;
    while (next_character(&json, &code)) {
        char bytes[4];
        size_t width = utf8(code, bytes);
        if (width > room - size)
            return 0;
        memcpy(to + size, bytes, width);
        size += width;
    }
    return size;
}

/* Whether a string of an answer is a secret's name. */
static bool is_name(struct span text) {
    char name[MAX_NAME];
    return is_secret_name(name, short_string(text, name, sizeof name));
}

static bool is_project_name(struct span text) {
    char name[MAX_PROJECT];
    return is_project(name, short_string(text, name, sizeof name));
}

/* Whether a value is a bundle: an object of strings under names that a push may have. */
static bool is_bundle(struct span content) {
    struct span name, item = {0};
    if (content.size == 0 || *content.at != '{' || !is_object(&content))
        return false;
    while (next_member(content, &name, &item))
        if (!is_name(name) || ((!is_string(item) || has_surrogate(item)) && !is_overridden(content, name, item)))
            return false;
    return true;
}

/* What the project may fetch, and which secret a server gets; `hosts` is empty where the broker names none. */
static bool get_info(struct span *allowlist, struct span *hosts) {
    struct span answer, name, item = {0};
    if (!ask("{\"op\":\"info\"}\n", &answer, TIMEOUT_MS) || !require(answer, "project", "str", is_string))
        return false;
    *allowlist = field(answer, "allowlist");
    if (!allowlist->at)
        return bad_field(MISSING, "allowlist", NULL);
    if (*allowlist->at != '[')
        return bad_field(WRONG_TYPE, "allowlist", "list[str]");
    while (next_member(*allowlist, &name, &item))
        if (!is_string(item))
            return bad_field(WRONG_TYPE, "allowlist", "str");
    if (!require(answer, "schema_version", "int", is_integer))
        return false;
    if (!is_null_or(field(answer, "manifest_path"), is_string))
        return bad_field(WRONG_TYPE, "manifest_path", "str");
    if (!is_null_or(field(answer, "manifest_sha256"), is_string))
        return bad_field(WRONG_TYPE, "manifest_sha256", "str");
    *hosts = field(answer, "hosts");
    if (!hosts->at || is_word(*hosts, "null"))
        *hosts = text_span("{}");
    if (*hosts->at != '{')
        return bad_field(WRONG_TYPE, "hosts", "dict[str, str]");
    for (item.at = NULL; next_member(*hosts, &name, &item);)
        if (!is_string(item) && !is_overridden(*hosts, name, item))
            return bad_field(WRONG_TYPE, "hosts", "str");
    if (!is_project_name(field(answer, "project")))
        return bad_reply("'project' is not a valid name");
    for (item.at = NULL; next_member(*allowlist, &name, &item);)
        if (!is_name(item))
            return bad_reply("'allowlist' has a name that is not valid");
    for (item.at = NULL; next_member(*hosts, &name, &item);)
        if (!is_name(item) && !is_overridden(*hosts, name, item)) /* the second reads all that follow */
            return bad_reply("'hosts' has a name that is not valid");
    return true;
}

/* --- which socket ------------------------------------------------------------------------------------------------- */

static char several[MAX_LISTED][NAME_MAX + 1];
static size_t found_sockets;

/* Sockets are kept in order, as many as an error would list. */
static void remember_socket(const char *name) {
    size_t at = found_sockets < MAX_LISTED ? found_sockets : MAX_LISTED;
    while (at > 0 && strcmp(name, several[at - 1]) < 0)
        at--;
    found_sockets++;
    if (at == MAX_LISTED)
        return;
    memmove(several[at + 1 < MAX_LISTED ? at + 1 : at], several[at], (MAX_LISTED - 1 - at) * sizeof several[0]);
    memcpy(several[at], name, strlen(name) + 1);
}

/* What getdents64(2) writes. */
struct entry {
    uint64_t inode, offset;
    uint16_t size;
    uint8_t type;
    char name[];
};

static bool find_socket(void) {
    static const char *const variables[] = {"REMO_BROKER_SOCKET", "REMO_BROKER_PROJECT_SOCKET"};
    const char *given = arguments.socket;
    for (size_t i = 0; i < 2 && !(given && *given); i++)
        given = getenv(variables[i]);
    if (given && *given) {
        problem.text = (struct span){(char *)given, strlen(given)};
        if (is_host_socket(given))
            return fail(HOST_SOCKET, EXIT_FAILURE);
        socket_path = given;
        return true;
    }
    socket_path = SOCKET_DIR "/broker.sock";
    if (access(socket_path, F_OK) == 0)
        return true;
    found_sockets = 0;
    int directory = open(SOCKET_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0) {
        problem.number = errno;
        problem.temporary = errno == ENOENT;
        if (stat(SOCKET_DIR, &problem.found) < 0)
            memset(&problem.found, 0, sizeof problem.found);
        return fail(problem.temporary ? NO_RUN_DIRECTORY : SHUT_RUN_DIRECTORY, EXIT_UNREACHABLE);
    }
    /* Not opendir(3), which takes memory from the heap. */
    char entries[4096] __attribute__((aligned(8)));
    long size;
    while ((size = syscall(SYS_getdents64, directory, entries, sizeof entries)) > 0)
        for (long at = 0; at < size; at += ((struct entry *)(entries + at))->size) {
            const char *name = ((struct entry *)(entries + at))->name;
            size_t length = strlen(name);
            if (length > 5 && !strcmp(name + length - 5, ".sock") && !is_host_socket(name) && is_project(name, length - 5))
                remember_socket(name);
        }
    close(directory);
    problem.temporary = found_sockets == 0;
    if (found_sockets != 1)
        return fail(found_sockets ? SEVERAL_SOCKETS : NO_PROJECT_SOCKET, EXIT_UNREACHABLE);
    static char only[sizeof SOCKET_DIR + sizeof several[0]] = SOCKET_DIR "/";
    strcpy(only + sizeof SOCKET_DIR, several[0]);
    socket_path = only;
    return true;
}

/* --- why a socket could not be connected to ------------------------------------------------------------------------ */

static void say_name(const char *file, long id) {
    char name[MAX_USER];
    if (look_up(file, NULL, &id, name))
        say_text(name);
    else
        say_number(id);
}

static void say_user(long uid) {
    say_name("/etc/passwd", uid);
}

static void say_mode(const struct stat *found) {
    say("mode ");
    for (int shift = 9; shift >= 0; shift -= 3)
        put(&"01234567"[found->st_mode >> shift & 7], 1);
    say(", ");
    say_user(found->st_uid);
    say(":");
    say_name("/etc/group", found->st_gid);
}

/* `path` from the root, without `.`, `..` and empty parts; false where that is too long. */
static bool absolute(const char *path, char whole[2 * PATH_MAX]) {
    size_t used = 0;
    if (path[0] == '/' && path[1] == '/' && path[2] != '/') /* two slashes are kept, as POSIX has it */
        whole[used++] = '/';
    if (*path != '/' && (!getcwd(whole, PATH_MAX) || (used = strlen(whole)) == 1))
        used = 0;
    while (*path) {
        size_t part = strcspn(path, "/");
        if (part == 2 && path[0] == '.' && path[1] == '.') {
            while (used > 0 && whole[--used] != '/')
                ;
        } else if (part > 0 && !(part == 1 && *path == '.')) {
            if (used + part + 2 > 2 * PATH_MAX)
                return false;
            whole[used++] = '/';
            memcpy(whole + used, path, part);
            used += part;
        }
        path += part + (path[part] == '/');
    }
    whole[used] = 0;
    return true;
}

/* The first directory of the path that is missing or may not be searched. */
static void say_nearest(const char *path) {
    static char directory[2 * PATH_MAX];
    char *slash;
    struct stat found;
    if (!absolute(path, directory))
        return;
    while ((slash = strrchr(directory, '/')) != NULL && slash != directory) {
        *slash = 0;
        if (stat(directory, &found) == 0) {
            if (access(directory, X_OK) < 0) {
                say(" (");
                say_text(directory);
                say(" is ");
                say_mode(&found);
                say("; you are ");
                say_user(geteuid());
                say(")");
            }
            return;
        }
        slash = strrchr(directory, '/');
        if (errno != ENOENT || !slash)
            continue;
        struct stat parent;
        *slash = 0;
        bool is_there = stat(slash == directory ? "/" : directory, &parent) == 0 && S_ISDIR(parent.st_mode);
        *slash = '/';
        if (is_there) {
            say(" (nor does ");
            say_text(directory);
            say(")");
            return;
        }
    }
}

/* --- reporting ---------------------------------------------------------------------------------------------------- */

/* Names with commas, at most MAX_LISTED of them; `*count` counts all. */
static void say_listed(struct span name, size_t *count) {
    if (*count < MAX_LISTED) {
        say(*count ? ", " : "");
        say_escaped(name);
    }
    ++*count;
}

static void say_more(size_t count) {
    if (count > MAX_LISTED) {
        say(", ... and ");
        say_number((long)(count - MAX_LISTED));
        say(" more");
    }
}

static void say_sockets(void) {
    size_t count = 0;
    for (size_t i = 0; i < found_sockets && i < MAX_LISTED; i++)
        say_listed(text_span(several[i]), &count);
    say_more(found_sockets);
}

/* The names of a bundle's fields, each once, in their order. */
static void say_fields(struct span bundle) {
    struct span name, item = {0}, earlier, other;
    size_t count = 0;
    while (next_member(bundle, &name, &item)) {
        char text[MAX_NAME];
        size_t size = short_string(name, text, sizeof text);
        other.at = NULL;
        while (next_member(bundle, &earlier, &other) && earlier.at < name.at && !string_is(earlier, (struct span){text, size}))
            ;
        if (earlier.at == name.at)
            say_listed((struct span){text, size}, &count);
    }
    say_more(count);
}

#define REGISTER "\nHint: run 'remo-brokerctl register' or 'reload' on the host, or mount the project's socket here"
#define PERMISSION                                                                                                     \
    "\nHint: join the group that owns the socket, or mount the project's directory below /run/remo-broker/mount instead"
#define MOUNT "\nHint: mount the project's socket there, or give it with --socket or $REMO_BROKER_SOCKET"

/* What each failure says; `say_problem` has the directives. */
static const char *const messages[] = {
    [BAD_REPLY] = "%p: malformed reply: %t\nHint: check that this is a socket of remo-broker",
    [MISSING] = "%p: malformed reply: '%n' is missing\nHint: check that this is a socket of remo-broker",
    [WRONG_TYPE] = "%p: malformed reply: '%n' is not of type %k\nHint: check that this is a socket of remo-broker",
    [OLD_BROKER] = "%p: the broker speaks protocol version %t, this client version " PROTOCOL_VERSION
                   "\nHint: upgrade the broker",
    [NEW_BROKER] = "%p: the broker speaks protocol version %t, this client version " PROTOCOL_VERSION
                   "\nHint: upgrade the client",
    [REFUSED] = "%h",
    [UNKNOWN_OP] = "%p: %h",
    [LOST] = "%p: the broker closed the connection before it replied\nHint: try again",
    [TIMED_OUT] = "%p: no reply within 30 s\nHint: run 'systemctl status remo-broker.service' on the host",
    [TOO_LONG] = "%p: longer than 107 bytes, the limit for a socket's path\nHint: mount the socket's directory at a "
                 "shorter path",
    [ABSENT] = "%p does not exist%d" REGISTER,
    [UNSEEN] = "%p: %e%d" PERMISSION,
    [DIRECTORY] = "%p is a directory, not a socket\nHint: on the host, remove the directory with rmdir, then start the "
                  "broker's socket and this container again",
    [NO_SOCKET] = "%p is not a socket (%m)\nHint: give the broker's socket with --socket",
    [FORBIDDEN] = "%p: permission denied (%m; you are %y)" PERMISSION,
    [REPLACED] = "%p was replaced on the host; this mount still shows the old socket\nHint: restart this container; "
                 "mount the socket's directory to avoid this",
    [NO_LISTENER] = "%p: nothing listens on this socket (%m)" REGISTER,
    [NO_CONNECTION] = "%p (%m): %e",
    [UNTRUSTED] = "%p: the listener belongs to user %u, not to the broker\nHint: if a broker runs as that user on "
                  "purpose, set REMO_BROKER_UID=%i; otherwise remove the socket",
    [NO_RUN_DIRECTORY] = SOCKET_DIR " does not exist" MOUNT,
    [SHUT_RUN_DIRECTORY] = SOCKET_DIR ": %e (%m; you are %y)" MOUNT,
    [NO_PROJECT_SOCKET] = SOCKET_DIR " has no socket of a project" MOUNT,
    [SEVERAL_SOCKETS] = SOCKET_DIR " has several sockets: %s\nHint: choose one with --socket or $REMO_BROKER_SOCKET",
    [HOST_SOCKET] = "%t is a socket of the host, not of a project\nHint: give the project's socket with --socket or "
                    "$REMO_BROKER_SOCKET",
    [NOT_READY] = "the broker has no secrets yet\nHint: have the sidecar push them, or run 'remo-brokerctl push' on the "
                  "host",
    [NO_BUNDLE] = "%n is not a bundle, so it has no fields\nHint: omit --field",
    [NO_FIELD] = "%n has no field %f\nHint: it has %b",
    [CONTROL_CHARACTERS] = "%n has control characters, which a terminal may execute\nHint: redirect the output to a file "
                           "or a pipe",
    [GIT_BINARY] = "%n is binary\nHint: push a string, or a bundle with the fields username and password",
    [GIT_NO_PASSWORD] = "%n has no field 'password'\nHint: push a string, or a bundle with the fields username and "
                        "password",
    [GIT_LINE_BREAK] = "%n has a line break or a zero byte, which git does not accept in a password\nHint: push it "
                       "without; 'remo-brokerctl push --strip-newline' omits a newline at the end",
    [GIT_KEY_TWICE] = "git's request has the key %t twice\nHint: check the URL of the remote",
    [NO_AWS_KEY] = "%n is not a bundle with an AWS key\nHint: push a bundle with the fields aws_access_key_id, "
                   "aws_secret_access_key and, if there is one, aws_session_token",
    [INPUT] = "standard input: %e",
    [OUTPUT] = "output: %e",
};

static void say_problem(const char *text) {
    for (; *text; text++) {
        if (*text != '%') {
            put(text, 1);
            continue;
        }
        switch (*++text) {
        case 'b': say_fields(problem.text); break;
        case 'd': say_nearest(socket_path); break;
        case 'e': say_error((int)problem.number); break;
        case 'f': say_text(arguments.field); break;
        case 'h': say_characters(problem.text, true); break;
        case 'i': say_number(problem.number); break;
        case 'k': say(problem.type); break;
        case 'm': say_mode(&problem.found); break;
        case 'n': say_text(problem.name); break;
        case 'p': say_text(socket_path); break;
        case 's': say_sockets(); break;
        case 't': say_escaped(problem.text); break;
        case 'u': say_user(problem.number); break;
        case 'y': say_user(geteuid()); break;
        }
    }
}

static void report(void) {
    out.descriptor = STDERR_FILENO;
    out.error = 0;
    say("remo-secret: ");
    if (problem.waited >= 0) {
        say("waited ");
        say_number(problem.waited);
        say(" s: ");
    }
    if (problem.is_named) {
        say_text(problem.name);
        say(problem.host.at ? ", for " : "");
        say_escaped(problem.host);
        say(": ");
    }
    say_problem(problem.waited >= 0 && problem.kind == TIMED_OUT
                    ? "%p: connected, but there was no reply\nHint: run 'systemctl status remo-broker.service' on the host"
                    : messages[problem.kind]);
    say("\n");
    flush();
}

/* --- the commands ------------------------------------------------------------------------------------------------- */

/* Whether standard output may have this: anything, unless it is a terminal. Any command can be run by hand. */
static bool may_write(struct span content) {
    return !isatty(STDOUT_FILENO) || is_text(content) || fail(CONTROL_CHARACTERS, EXIT_FAILURE);
}

static bool write_secret(struct span content) {
    if (!may_write(content))
        return false;
    if (isatty(STDOUT_FILENO)) {
        if (content.size == 0 || content.at[content.size - 1] != '\n') {
            put(content.at, content.size);
            say("\n");
            return true;
        }
    }
    put(content.at, content.size);
    return true;
}

static bool list(void) {
    struct span allowlist, hosts, name, item = {0};
    if (!find_socket() || !get_info(&allowlist, &hosts))
        return false;
    while (next_member(allowlist, &name, &item)) {
        char text[MAX_NAME];
        put(text, short_string(item, text, sizeof text));
        say("\n");
    }
    return true;
}

static bool is_ready(int64_t timeout) {
    struct span answer;
    if (!find_socket() || !ask("{\"op\":\"ready\"}\n", &answer, timeout))
        return false;
    if (!require(answer, "ready", "bool", is_boolean) || !require(answer, "generation", "int", is_integer))
        return false;
    problem.temporary = true;
    return is_word(field(answer, "ready"), "true") || fail(NOT_READY, EXIT_NOT_FOUND);
}

/* Returns true when the broker has secrets; the connection is closed again. */
static bool wait_until_ready(long seconds) {
    int64_t left = seconds * 1000, deadline = now_ms() + left;
    int64_t timeout = left > FIRST_ANSWER_MS ? left : FIRST_ANSWER_MS;
    for (;;) {
        bool ready = is_ready(timeout);
        if (!ready && problem.kind != LOST && problem.kind != TIMED_OUT && !problem.temporary)
            return false;
        left = deadline - now_ms();
        if (!ready)
            sleep_ms(left < POLL_MS ? left : POLL_MS);
        timeout = deadline - now_ms();
        if (!ready && timeout <= 0) {
            problem.waited = seconds;
            problem.status = problem.status == EXIT_RATE_LIMITED ? EXIT_UNREACHABLE : problem.status;
            return false;
        }
        disconnect();
        if (ready)
            return true;
    }
}

/* `fetch` once the broker has secrets: waits as long as --wait says, by default for a broker that is up but empty. */
static bool with_secrets(bool (*fetch)(void)) {
    if (arguments.wait > 0 && !wait_until_ready(arguments.wait))
        return false;
    if (fetch())
        return true;
    if (arguments.wait >= 0 || !problem.no_snapshot)
        return false;
    problem.is_named = false;
    disconnect();
    return wait_until_ready(DEFAULT_WAIT_SECONDS) && fetch();
}

/* For a helper: a refusal names the secret. */
static bool get_named(const char *name, struct span *content, bool *binary) {
    bool done = get_secret(name, content, binary);
    problem.is_named = !done && (problem.kind == REFUSED || problem.kind == UNKNOWN_OP);
    if (done || problem.is_named)
        problem.name = name;
    return done;
}

static bool wait_command(void) {
    return wait_until_ready(arguments.timeout < 0 ? DEFAULT_WAIT_SECONDS : arguments.timeout);
}

static bool get(void) {
    struct span content;
    bool binary;
    if (arguments.wait > 0 && !wait_until_ready(arguments.wait))
        return false;
    if (!find_socket() || !get_secret(arguments.operand, &content, &binary))
        return false;
    if (binary && !from_base64(&content))
        return false;
    problem.name = arguments.operand;
    if (arguments.field) {
        if (binary || !is_bundle(content))
            return fail(NO_BUNDLE, EXIT_FAILURE);
        struct span found = field(content, arguments.field);
        problem.text = content;
        if (!found.at)
            return fail(NO_FIELD, EXIT_NOT_FOUND);
        content = decoded(found);
    }
    return write_secret(content);
}

/* --- git ---------------------------------------------------------------------------------------------------------- */

/* The same table as in remo_broker.secret.servers, which says why it is a table and not a rule. */
static const struct {
    const char *host, *user, *names[3];
} servers[] = {
    {"github.com", "x-access-token", {"GITHUB_TOKEN", "GH_TOKEN"}},
    {"gist.github.com", "x-access-token", {"GITHUB_TOKEN", "GH_TOKEN"}},
    {"gitlab.com", "oauth2", {"GITLAB_TOKEN"}},
    {"bitbucket.org", "x-token-auth", {"BITBUCKET_TOKEN"}},
    {"codeberg.org", "x-access-token", {"CODEBERG_TOKEN"}},
    {"dev.azure.com", "x-access-token", {"AZURE_DEVOPS_TOKEN"}},
};
enum { SERVERS = sizeof servers / sizeof *servers };

/* What git asks. */
static struct {
    size_t size; /* of secret.asked */
    struct span protocol, host, username;
    bool authtype;
    char name[MAX_NAME + 1]; /* the secret's, where the broker named it */
} asked;

static bool span_is(struct span text, struct span wanted) {
    return text.at && text.size == wanted.size && memcmp(text.at, wanted.at, text.size) == 0;
}

static void lower(struct span text) {
    for (size_t i = 0; i < text.size; i++)
        if (text.at[i] >= 'A' && text.at[i] <= 'Z')
            text.at[i] = (char)(text.at[i] + 32);
}

/* The next line of git's request, without its LF or CRLF; false at an empty line and at the end. */
static bool next_line(size_t *at, struct span *line) {
    if (*at >= asked.size)
        return false;
    char *first = secret.asked + *at, *newline = memchr(first, '\n', asked.size - *at);
    *line = (struct span){first, newline ? (size_t)(newline - first) : asked.size - *at};
    *at += line->size + 1;
    if (line->size > 0 && first[line->size - 1] == '\r')
        line->size--;
    return line->size > 0;
}

static void split(struct span line, struct span *key, struct span *value) {
    char *equals = memchr(line.at, '=', line.size);
    *key = (struct span){line.at, equals ? (size_t)(equals - line.at) : line.size};
    *value = (struct span){line.at + line.size, 0};
    if (equals)
        *value = (struct span){equals + 1, line.size - key->size - 1};
}

/* Reads up to an empty line or the end, whatever the operation is: git may still be writing. */
static bool read_request(void) {
    size_t begun = 0; /* where the last line begins */
    for (;;) {
        ssize_t some = read(STDIN_FILENO, secret.asked + asked.size, sizeof secret.asked - asked.size);
        if (some < 0 && errno == EINTR)
            continue;
        if (some < 0) {
            problem.number = errno;
            return fail(INPUT, EXIT_FAILURE);
        }
        if (some == 0)
            return true;
        asked.size += (size_t)some;
        for (char *newline; (newline = memchr(secret.asked + begun, '\n', asked.size - begun)) != NULL;) {
            size_t size = (size_t)(newline - secret.asked) - begun;
            if (size == 0 || (size == 1 && secret.asked[begun] == '\r'))
                return true;
            begun += size + 1;
        }
    }
}

/* Whether a word of a list is "authtype". */
static bool has_authtype(struct span list) {
    for (size_t at = 0, end; at < list.size; at = end + 1) {
        for (end = at; end < list.size && list.at[end] != ' '; end++)
            ;
        if (span_is((struct span){list.at + at, end - at}, text_span("authtype")))
            return true;
    }
    return false;
}

/* A key occurs once, unless its name ends in []: which of two hosts git meant is not for us to choose. */
static bool parse_request(void) {
    struct span line, key, value, earlier, other;
    for (size_t at = 0; next_line(&at, &line);) {
        split(line, &key, &value);
        if (key.size >= 2 && key.at[key.size - 2] == '[' && key.at[key.size - 1] == ']') {
            if (span_is(key, text_span("capability[]")))
                asked.authtype = value.size > 0 && (asked.authtype || has_authtype(value));
            continue;
        }
        for (size_t before = 0; next_line(&before, &earlier) && earlier.at < line.at;) {
            split(earlier, &earlier, &other);
            problem.text = key;
            if (span_is(earlier, key))
                return fail(GIT_KEY_TWICE, EXIT_FAILURE);
        }
        if (span_is(key, text_span("protocol")))
            asked.protocol = value;
        else if (span_is(key, text_span("host")))
            asked.host = value;
        else if (span_is(key, text_span("username")))
            asked.username = value;
    }
    return true;
}

/* Where --host named other hosts only: a host with a port is another server than the same host without. */
static void explain_port(void) {
    const char *colon = memchr(asked.host.at, ':', asked.host.size);
    size_t bare = colon ? (size_t)(colon - asked.host.at) : asked.host.size;
    for (size_t i = 0; i < arguments.host_count; i++) {
        if (strcspn(arguments.hosts[i], ":") != bare || memcmp(arguments.hosts[i], asked.host.at, bare) != 0)
            continue;
        out.descriptor = STDERR_FILENO;
        say("remo-secret: git asks for ");
        say_escaped(asked.host);
        say(", which is not the same server as --host=");
        say_text(arguments.hosts[i]);
        say("\nHint: give --host=");
        say_escaped(asked.host);
        say(" if the secret is for it\n");
        flush();
        out.error = 0;
        out.descriptor = STDOUT_FILENO;
        return;
    }
}

/* The secret for the host: the broker's word for it, or the first of the table that the project may fetch; NULL where
 * there is none. False where asking failed. */
static bool choose(const char **chosen) {
    struct span allowlist, hosts, name, item = {0};
    *chosen = NULL;
    if (!get_info(&allowlist, &hosts))
        return false;
    struct span own = member(hosts, asked.host);
    if (own.at) {
        asked.name[short_string(own, asked.name, MAX_NAME)] = 0;
        *chosen = asked.name;
        return true;
    }
    for (size_t i = 0; i < SERVERS; i++)
        if (span_is(asked.host, text_span(servers[i].host)))
            for (const char *const *one = servers[i].names; *one && !*chosen; one++)
                for (item.at = NULL; next_member(allowlist, &name, &item);)
                    if (string_is(item, text_span(*one)))
                        *chosen = *one;
    return true;
}

static bool is_one_line(struct span text) {
    return !memchr(text.at, '\n', text.size) && !memchr(text.at, '\r', text.size) && !memchr(text.at, 0, text.size);
}

static bool answer_git(void) {
    struct span content, username = {0}, password, fallback = text_span("x-access-token");
    bool binary;
    const char *name = NULL;
    if (!find_socket())
        return false;
    for (size_t i = 0; i < arguments.host_count && !name; i++)
        if (span_is(asked.host, text_span(arguments.hosts[i])))
            name = arguments.secrets[i];
    if (!name && !choose(&name))
        return false;
    if (!name)
        return true;
    problem.host = asked.host;
    if (!get_named(name, &content, &binary))
        return false;
    if (binary)
        return from_base64(&content) && fail(GIT_BINARY, EXIT_FAILURE);
    for (size_t i = 0; i < SERVERS; i++)
        if (span_is(asked.host, text_span(servers[i].host)))
            fallback = text_span(servers[i].user);
    if (arguments.username)
        fallback = text_span(arguments.username);
    if (is_bundle(content)) {
        struct span own = field(content, "username"), found = field(content, "password");
        if (!found.at)
            return fail(GIT_NO_PASSWORD, EXIT_FAILURE);
        password = decoded(found);
        if (own.at)
            username = decoded(own);
        if (username.size && asked.username.size && !span_is(username, asked.username))
            return true; /* git wants another user than the secret is for */
    } else {
        password = content;
    }
    username = username.size ? username : asked.username.size ? asked.username : fallback;
    if (!is_one_line(username) || !is_one_line(password))
        return fail(GIT_LINE_BREAK, EXIT_FAILURE);
    problem.name = name;
    if (!may_write(username) || !may_write(password))
        return false;
    /* git is told not to have other helpers store the password. */
    say(asked.authtype ? "capability[]=authtype\nusername=" : "username=");
    put(username.at, username.size);
    say("\npassword=");
    put(password.at, password.size);
    say(asked.authtype ? "\nephemeral=1\n" : "\n");
    return true;
}

static bool git_credential(void) {
    bool own = false;
    if (!read_request())
        return false;
    if (strcmp(arguments.operand, "get"))
        return true;
    if (!parse_request())
        return false;
    lower(asked.host);
    if (!span_is(asked.protocol, text_span("https")) || !asked.host.size)
        return true;
    for (size_t i = 0; i < arguments.host_count; i++) {
        lower((struct span){arguments.hosts[i], strlen(arguments.hosts[i])});
        own = own || span_is(asked.host, text_span(arguments.hosts[i]));
    }
    if (arguments.host_count && !own) {
        explain_port();
        return true;
    }
    return with_secrets(answer_git);
}

/* --- aws ---------------------------------------------------------------------------------------------------------- */

/* A line of the answer; the string's escapes become those that Python writes. */
static void say_member(const char *name, struct span text) {
    struct cursor json = {text.at + 1, text.at + text.size};
    char bytes[6];
    uint32_t code;
    say(",\n  \"");
    say(name);
    say("\": \"");
    while (next_character(&json, &code))
        put(bytes, code < 0x80 ? escape((char)code, bytes) : utf8(code, bytes));
    say("\"");
}

/* Whether standard output may have what `say_member` makes of it. */
static bool may_say(struct span text) {
    if (!text.at || !isatty(STDOUT_FILENO))
        return true;
    struct cursor json = {text.at + 1, text.at + text.size};
    uint32_t code;
    while (next_character(&json, &code))
        if (code >= 0x20 && !is_plain(code))
            return fail(CONTROL_CHARACTERS, EXIT_FAILURE);
    return true;
}

/* The bundle's field under the first of these names that is there. */
static struct span first_of(struct span bundle, const char *const names[4]) {
    struct span found = {0};
    for (int i = 0; i < 4 && !found.at; i++)
        found = field(bundle, names[i]);
    return found;
}

static bool answer_aws(void) {
    static const char *const key_ids[] = {"aws_access_key_id", "AWS_ACCESS_KEY_ID", "access_key_id", "AccessKeyId"};
    static const char *const secret_keys[] = {"aws_secret_access_key", "AWS_SECRET_ACCESS_KEY", "secret_access_key",
                                              "SecretAccessKey"};
    static const char *const tokens[] = {"aws_session_token", "AWS_SESSION_TOKEN", "session_token", "SessionToken"};
    struct span content;
    bool binary;
    if (!find_socket() || !get_named(arguments.operand, &content, &binary))
        return false;
    if (binary && !from_base64(&content))
        return false;
    if (binary || !is_bundle(content))
        return fail(NO_AWS_KEY, EXIT_FAILURE);
    struct span key_id = first_of(content, key_ids), secret_key = first_of(content, secret_keys);
    struct span token = first_of(content, tokens);
    if (!key_id.at || !secret_key.at)
        return fail(NO_AWS_KEY, EXIT_FAILURE);
    problem.name = arguments.operand;
    struct span expiry = is_string(expires_at) ? expires_at : (struct span){0};
    if (!may_say(key_id) || !may_say(secret_key) || !may_say(token) || !may_say(expiry))
        return false;
    say("{\n  \"Version\": 1");
    say_member("AccessKeyId", key_id);
    say_member("SecretAccessKey", secret_key);
    if (token.at)
        say_member("SessionToken", token);
    if (expiry.at)
        say_member("Expiration", expiry);
    say("\n}\n");
    return true;
}

static bool aws_credentials(void) {
    return with_secrets(answer_aws);
}

/* --- the command line --------------------------------------------------------------------------------------------- */

enum { GET = 1, LIST = 2, WAIT = 4, GIT = 8, AWS = 16, ANY = 31 };

static const struct {
    const char *name;
    int bit;
    size_t operands;
    bool (*run)(void);
} commands[] = {
    {"get", GET, 1, get},
    {"list", LIST, 0, list},
    {"wait", WAIT, 0, wait_command},
    {"git-credential", GIT, 1, git_credential},
    {"aws-credentials", AWS, 1, aws_credentials},
};

static const char *timeout_text, *wait_text;

static const struct {
    const char *name;
    char letter;
    int commands;
    const char **value; /* the last one counts; NULL for the options of which all count */
    const char *bare;   /* the value of an option that stands without one */
} options[] = {
    {"--socket", 0, ANY, &arguments.socket, NULL},
    {"--field", 'f', GET, &arguments.field, NULL},
    {"--timeout", 0, WAIT, &timeout_text, NULL},
    {"--wait", 0, GET | GIT | AWS, &wait_text, "15"},
    {"--username", 0, GIT, &arguments.username, NULL},
    {"--host", 0, GIT, NULL, NULL},
    {"--secret", 0, GIT, NULL, NULL},
};
enum { COMMANDS = sizeof commands / sizeof *commands, OPTIONS = sizeof options / sizeof *options };

static bool parse_seconds(const char *text, long *seconds) {
    if (!text)
        return true;
    size_t size = strlen(text);
    if (size == 0 || size >= 18 || strspn(text, "0123456789") != size)
        return false;
    *seconds = strtol(text, NULL, 10);
    return *seconds <= LONGEST_WAIT_SECONDS;
}

/* Whether it is UTF-8, and as short as a request has room for. */
static bool is_sendable(const char *text) {
    size_t size = strlen(text);
    for (size_t i = 0, width; i < size; i += width)
        if (is_surrogate(character(text + i, size - i, &width, false)))
            return false;
    return size > 0 && size <= MAX_SENT;
}

/* One of the options of which all count. Python takes lists with commas, and hosts that are not ASCII. */
static bool add_pair_option(const char *name, char *value) {
    for (const char *one = value; *one; one++)
        if (*one == ',' || (unsigned char)*one >= 0x80)
            return false;
    if (!strcmp(name, "--host") && arguments.host_count < MAX_HOSTS)
        arguments.hosts[arguments.host_count++] = value;
    else if (!strcmp(name, "--secret") && arguments.secret_count < MAX_HOSTS)
        arguments.secrets[arguments.secret_count++] = value;
    else
        return false;
    return true;
}

/* Each host has a secret, and one only. */
static bool are_pairs(void) {
    for (size_t i = 0; i < arguments.host_count && i < arguments.secret_count; i++)
        for (size_t j = 0; j < i; j++)
            if (!strcasecmp(arguments.hosts[i], arguments.hosts[j]) && strcmp(arguments.secrets[i], arguments.secrets[j]))
                return false;
    return arguments.host_count == arguments.secret_count;
}

/* The option of the word that begins with `size` bytes of a name; OPTIONS where the command has none of that name. */
static size_t find_option(const char *word, size_t size, int bit) {
    size_t i = 0;
    for (; i < OPTIONS; i++) {
        bool same = word[1] == '-' ? strlen(options[i].name) == size && !strncmp(word, options[i].name, size)
                                   : options[i].letter == word[1];
        if (same && (options[i].commands == ANY || options[i].commands & bit))
            break;
    }
    return i;
}

static size_t find_command(const char *word) {
    size_t i = 0;
    while (i < COMMANDS && strcmp(word, commands[i].name))
        i++;
    return i;
}

/* Whether the command line is one that this program knows in full; `*command` is its place in the table. The rules are
 * getopt_long's, as in remo_broker.cli.options. */
static bool parse(int count, char **words, size_t *command) {
    size_t operands = 0;
    bool only_operands = false;
    *command = COMMANDS;
    for (int i = 1; i < count; i++) {
        char *word = words[i], *value = NULL;
        if (!only_operands && !strcmp(word, "--")) {
            only_operands = true;
            continue;
        }
        if (only_operands || *word != '-' || !word[1]) {
            if (*command < COMMANDS) {
                arguments.operand = word;
                operands++;
            } else if ((*command = find_command(word)) == COMMANDS) {
                return false;
            }
            continue;
        }
        size_t size = word[1] == '-' ? strcspn(word, "=") : 2;
        size_t option = find_option(word, size, *command < COMMANDS ? commands[*command].bit : 0);
        if (option == OPTIONS)
            return false;
        if (word[size])
            value = word + size + (word[1] == '-');
        else if (options[option].bare)
            value = (char *)options[option].bare;
        else if (i + 1 < count)
            value = words[++i];
        if (!value || !*value)
            return false;
        if (options[option].value)
            *options[option].value = value;
        else if (!add_pair_option(options[option].name, value))
            return false;
    }
    if (*command == COMMANDS || operands != commands[*command].operands || !are_pairs())
        return false;
    if (!parse_seconds(timeout_text, &arguments.timeout) || !parse_seconds(wait_text, &arguments.wait))
        return false;
    for (size_t i = 0; i < arguments.secret_count; i++)
        if (!is_sendable(arguments.secrets[i]))
            return false;
    return !(commands[*command].bit & (GET | AWS)) || (arguments.operand && is_sendable(arguments.operand));
}

/* --- the Python program ------------------------------------------------------------------------------------------- */

/* Python's remo-secret takes over. Returns where there is none. */
static void hand_over(char **words) {
    static const char *const beside[] = {"/remo-secret.pyz", "/../lib/remo-broker/remo-secret",
                                         "/../lib/remo-broker/remo-secret.pyz"};
    static const char *const fixed[] = {"/usr/lib/remo-broker/remo-secret", "/usr/lib/remo-broker/remo-secret.pyz"};
    char path[PATH_MAX + 64];
    ssize_t size = readlink("/proc/self/exe", path, PATH_MAX);
    char *slash = size > 0 ? memrchr(path, '/', (size_t)size) : NULL;
    for (size_t i = 0; slash && i < sizeof beside / sizeof *beside; i++) {
        memcpy(slash, beside[i], strlen(beside[i]) + 1);
        execv(path, words);
    }
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
        execv(fixed[i], words);
}

/* Nothing but this program is here. */
static int without_python(int count, char **words) {
    bool mine = false;
    for (int i = 1; i < count; i++)
        mine = mine || find_command(words[i]) < COMMANDS;
    out.descriptor = STDERR_FILENO;
    say("remo-secret: this command line needs the Python program, which is not here\n"
        "Hint: put remo-secret.pyz beside this program and install Python, or use: get [-f FIELD] [--wait[=SECONDS]] NAME, "
        "list, wait [--timeout=SECONDS], git-credential [--host=HOST --secret=NAME] OPERATION, aws-credentials NAME; "
        "each with --socket=PATH\n");
    flush();
    return mine ? EXIT_USAGE : EXIT_FAILURE;
}

int main(int count, char **words) {
    size_t command;
    if (!parse(count, words, &command)) {
        hand_over(words);
        return without_python(count, words);
    }
    struct sigaction ignored = {.sa_handler = SIG_IGN}, interrupt = {.sa_handler = interrupted}, before;
    sigaction(SIGPIPE, &ignored, NULL);
    if (sigaction(SIGINT, NULL, &before) == 0 && before.sa_handler != SIG_IGN)
        sigaction(SIGINT, &interrupt, NULL);
    prctl(PR_SET_DUMPABLE, 0);
    mlock(&secret, sizeof secret);
    mlock(&out, sizeof out);

    bool done = commands[command].run();
    int status = done ? 0 : (int)problem.status;
    flush();
    if (out.error && done && out.error != EPIPE) {
        problem.number = out.error;
        done = fail(OUTPUT, EXIT_FAILURE);
        status = EXIT_FAILURE;
    }
    if (!done)
        report();
    wipe();
    return status;
}
