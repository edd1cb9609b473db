/* A native client of the Secret Service (org.freedesktop.secrets) on the session bus: stores one item in the collection
 * that lives in memory, then times GetSecret. The session is "plain": its other mode encrypts, which costs more.
 *
 * usage: secret_service REQUESTS        prints what load.c prints
 */
#include "common.h"

#include <stdio.h>
#include <string.h>
#include <systemd/sd-bus.h>

#define SERVICE "org.freedesktop.secrets"
#define COLLECTION "/org/freedesktop/secrets/collection/session"
#define WARMUP 100

static const char secret[] = "ghp_0123456789abcdefghijklmnopqrstuvwxyz";

static void check(int result, const char *what, const sd_bus_error *error)
{
    if (result < 0)
        die("%s: %s", what, error && error->message ? error->message : strerror(-result));
}

/* The session and the item of this connection: the service forgets both with it. */
static void store(sd_bus *bus, char **session, char **item)
{
    sd_bus_error error = SD_BUS_ERROR_NULL;
    sd_bus_message *call = NULL, *reply = NULL;
    const char *path;
    check(sd_bus_call_method(bus, SERVICE, "/org/freedesktop/secrets", "org.freedesktop.Secret.Service", "OpenSession",
                             &error, &reply, "sv", "plain", "s", ""),
          "OpenSession", &error);
    check(sd_bus_message_skip(reply, "v"), "OpenSession", NULL);
    check(sd_bus_message_read(reply, "o", &path), "OpenSession", NULL);
    *session = strdup(path);

    check(sd_bus_message_new_method_call(bus, &call, SERVICE, COLLECTION, "org.freedesktop.Secret.Collection", "CreateItem"),
          "CreateItem", NULL);
    check(sd_bus_message_append(call, "a{sv}", 1, "org.freedesktop.Secret.Item.Label", "s", "benchmark"), "CreateItem", NULL);
    check(sd_bus_message_open_container(call, 'r', "oayays"), "CreateItem", NULL);
    check(sd_bus_message_append(call, "o", *session), "CreateItem", NULL);
    check(sd_bus_message_append_array(call, 'y', NULL, 0), "CreateItem", NULL);
    check(sd_bus_message_append_array(call, 'y', secret, sizeof secret - 1), "CreateItem", NULL);
    check(sd_bus_message_append(call, "s", "text/plain"), "CreateItem", NULL);
    check(sd_bus_message_close_container(call), "CreateItem", NULL);
    check(sd_bus_message_append(call, "b", 1), "CreateItem", NULL);
    check(sd_bus_call(bus, call, 0, &error, &reply), "CreateItem", &error);
    check(sd_bus_message_read(reply, "oo", &path, NULL), "CreateItem", NULL);
    *item = strdup(path);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        die("usage: secret_service REQUESTS");
    unsigned long requests = number(argv[1], "REQUESTS"), errors = 0;
    sd_bus *bus;
    check(sd_bus_open_user(&bus), "the session bus", NULL);
    char *session, *item;
    store(bus, &session, &item);

    struct samples samples;
    samples_prepare(&samples, requests);
    uint64_t begin = 0;
    size_t size = 0;
    for (unsigned long i = 0; i < WARMUP + requests; i++) {
        sd_bus_error error = SD_BUS_ERROR_NULL;
        sd_bus_message *reply;
        const void *value;
        uint64_t started = now_ns();
        if (i == WARMUP)
            begin = started;
        check(sd_bus_call_method(bus, SERVICE, item, "org.freedesktop.Secret.Item", "GetSecret", &error, &reply, "o", session),
              "GetSecret", &error);
        check(sd_bus_message_enter_container(reply, 'r', "oayays"), "GetSecret", NULL);
        check(sd_bus_message_skip(reply, "oay"), "GetSecret", NULL);
        check(sd_bus_message_read_array(reply, 'y', &value, &size), "GetSecret", NULL);
        errors += size != sizeof secret - 1 || memcmp(value, secret, size);
        sd_bus_message_unref(reply);
        if (i >= WARMUP)
            samples_add(&samples, now_ns() - started);
    }
    double seconds = (double)(now_ns() - begin) / 1e9;
    printf("{\"seconds\":%.6f,\"per_second\":%.1f,\"errors\":%lu,\"refused\":0,\"reply_bytes\":%zu,", seconds,
           (double)requests / seconds, errors, size);
    samples_print(&samples);
    puts("}");
    return 0;
}
