/* The limit of the audit: sends records to journald as fast as it takes them, waiting while its queue is full.
 *
 * usage: blast SOCKET RECORD_FILE RECORDS RECORDS_PER_DATAGRAM
 *
 * Each record is the bytes of RECORD_FILE (journald's native protocol, last newline included) and behind them
 * REMO_LATENCY_USEC= with a number that changes and REMO_SERIAL= with one that no other has, as in the broker's own. Prints a
 * JSON object.
 */
#include "common.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define LARGEST_DATAGRAM 65536

int main(int argc, char **argv)
{
    if (argc != 5)
        die("usage: blast SOCKET RECORD_FILE RECORDS RECORDS_PER_DATAGRAM");
    size_t length;
    char *record = read_file(argv[2], &length);
    unsigned long records = number(argv[3], "RECORDS"), batch = number(argv[4], "RECORDS_PER_DATAGRAM");
    if (!records || !batch || batch * (length + 64) > LARGEST_DATAGRAM)
        die("between 1 record and %d bytes a datagram", LARGEST_DATAGRAM);

    int journal = connect_unix(argv[1], SOCK_DGRAM);
    static char datagram[LARGEST_DATAGRAM];
    uint64_t begin = now_ns();
    for (unsigned long sent = 0; sent < records;) {
        size_t size = 0;
        for (unsigned long i = 0; i < batch && sent < records; i++, sent++) {
            if (size)
                datagram[size++] = '\n'; /* an empty line between two entries */
            memcpy(datagram + size, record, length);
            size += length;
            size += (size_t)sprintf(datagram + size, "REMO_LATENCY_USEC=%lu\nREMO_SERIAL=%lu\n", sent % 1000, sent + 1);
        }
        if (send(journal, datagram, size, 0) != (ssize_t)size)
            die("send to %s", argv[1]);
    }
    double seconds = (double)(now_ns() - begin) / 1e9;
    printf("{\"records\":%lu,\"seconds\":%.6f,\"per_second\":%.1f}\n", records, seconds, (double)records / seconds);
    return 0;
}
