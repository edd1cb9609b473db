#define _GNU_SOURCE
/* The limit of the machine: a server that does nothing. One epoll loop, and for every line read a reply of fixed size.
 *
 * usage: echo SOCKET REPLY_BYTES [CPU]
 */
#include "common.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define LARGEST_REPLY 65536
#define EVENTS 64

static char reply[LARGEST_REPLY];
static size_t reply_size;

/* Answer what one read brings; false when the peer is gone. A client that does not read its replies is none of ours. */
static int serve(int fd)
{
    static char input[65536];
    ssize_t length = recv(fd, input, sizeof input, 0);
    if (length <= 0)
        return length < 0 && (errno == EAGAIN || errno == EINTR);
    for (const char *at = input, *end = input + length; (at = memchr(at, '\n', (size_t)(end - at))); at++)
        if (send(fd, reply, reply_size, MSG_NOSIGNAL) != (ssize_t)reply_size)
            return 0;
    return 1;
}

int main(int argc, char **argv)
{
    if (argc < 3)
        die("usage: echo SOCKET REPLY_BYTES [CPU]");
    reply_size = number(argv[2], "REPLY_BYTES");
    if (reply_size < 1 || reply_size > LARGEST_REPLY)
        die("REPLY_BYTES is 1 to %d", LARGEST_REPLY);
    memset(reply, '.', reply_size);
    reply[reply_size - 1] = '\n';
    pin(argc > 3 ? atoi(argv[3]) : -1);

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
