#define _GNU_SOURCE
/* The limit of the machine: a server that does nothing. One epoll loop, and for every line read a reply of fixed size.
 *
 * usage: echo SOCKET REPLY_BYTES [JOURNAL_SOCKET RECORD_FILE]
 *
 * With the latter two it hands a record to journald before each reply: the limit of an audited server.
 */
#include "common.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define LARGEST_REPLY 65536
#define EVENTS 64

static char reply[LARGEST_REPLY], *record;
static size_t reply_size, record_size;
static int journal = -1;

/* Answer what one read brings; false when the peer is gone. A client that does not read its replies is none of ours. */
static int serve(int fd)
{
    static char input[65536];
    ssize_t length = recv(fd, input, sizeof input, 0);
    if (length <= 0)
        return length < 0 && (errno == EAGAIN || errno == EINTR);
    for (const char *at = input, *end = input + length; (at = memchr(at, '\n', (size_t)(end - at))); at++) {
        if (record && send(journal, record, record_size, MSG_NOSIGNAL) != (ssize_t)record_size)
            die("send to the journal");
        if (send(fd, reply, reply_size, MSG_NOSIGNAL) != (ssize_t)reply_size)
            return 0;
    }
    return 1;
}

int main(int argc, char **argv)
{
    if (argc != 3 && argc != 5)
        die("usage: echo SOCKET REPLY_BYTES [JOURNAL_SOCKET RECORD_FILE]");
    reply_size = number(argv[2], "REPLY_BYTES");
    if (reply_size < 1 || reply_size > LARGEST_REPLY)
        die("REPLY_BYTES is 1 to %d", LARGEST_REPLY);
    memset(reply, '.', reply_size);
    reply[reply_size - 1] = '\n';
    if (argc == 5) {
        record = read_file(argv[4], &record_size);
        journal = connect_unix(argv[3], SOCK_DGRAM);
    }

    int listener = listen_unix(argv[1]), loop = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, ready[EVENTS];
    if (loop < 0 || epoll_ctl(loop, EPOLL_CTL_ADD, listener, &event))
        die("epoll");
    for (;;) {
        int count = epoll_wait(loop, ready, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            int fd = ready[i].data.fd;
            if (fd != listener) {
                if (!serve(fd))
                    close(fd);
                continue;
            }
            int peer = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
            event.data.fd = peer;
            if (peer >= 0 && epoll_ctl(loop, EPOLL_CTL_ADD, peer, &event))
                die("epoll");
        }
    }
}
