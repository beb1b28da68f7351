/* A Modbus/TCP server and client on libmodbus, for the bench of the inspector.
 *
 *   modbus server ADDRESS PORT DELAY      answers any number of connections (up to FD_SETSIZE), for ever, each request
 *                                         after so many microseconds
 *   modbus client ADDRESS PORT READS      one connection; the time of each read in nanoseconds, a line each
 *   modbus hold ADDRESS PORT COUNT        COUNT connections, one read on each; says "held", then waits for its end
 */
#include <errno.h>
#include <modbus.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <time.h>
#include <unistd.h>

#define REGISTERS 125

static void fail(const char *what) {
    fprintf(stderr, "%s: %s\n", what, modbus_strerror(errno));
    exit(1);
}

static modbus_t *made(const char *address, int port) {
    modbus_t *context = modbus_new_tcp(address, port);
    if (!context)
        fail("modbus_new_tcp");
    return context;
}

static void serve(const char *address, int port, long delay) {
    modbus_t *context = made(address, port);
    modbus_mapping_t *mapping = modbus_mapping_new(0, 0, REGISTERS, 0);
    int listener = modbus_tcp_listen(context, 512);
    if (!mapping || listener < 0)
        fail("listen");
    fd_set all;
    FD_ZERO(&all);
    FD_SET(listener, &all);
    int highest = listener;
    for (;;) {
        fd_set ready = all;
        if (select(highest + 1, &ready, NULL, NULL, NULL) < 0)
            fail("select");
        for (int fd = 0; fd <= highest; fd++) {
            if (!FD_ISSET(fd, &ready))
                continue;
            if (fd == listener) {
                int accepted = modbus_tcp_accept(context, &listener);
                if (accepted < 0 || accepted >= FD_SETSIZE)
                    fail("accept");
                FD_SET(accepted, &all);
                if (accepted > highest)
                    highest = accepted;
                continue;
            }
            uint8_t request[MODBUS_TCP_MAX_ADU_LENGTH];
            modbus_set_socket(context, fd);
            int length = modbus_receive(context, request);
            if (length > 0) {
                if (delay > 0)
                    usleep(delay);
                modbus_reply(context, request, length, mapping);
            } else if (length < 0) {
                close(fd);
                FD_CLR(fd, &all);
            }
        }
    }
}

static modbus_t *connected(const char *address, int port) {
    modbus_t *context = made(address, port);
    modbus_set_slave(context, 1);
    modbus_set_response_timeout(context, 5, 0);
    if (modbus_connect(context) < 0)
        fail("connect");
    return context;
}

static void read_once(modbus_t *context) {
    uint16_t values[10];
    if (modbus_read_registers(context, 0, 10, values) != 10)
        fail("read");
}

static int measure(const char *address, int port, long reads) {
    modbus_t *context = connected(address, port);
    long *nanoseconds = calloc(reads, sizeof *nanoseconds);
    for (int warm = 0; warm < 500; warm++)
        read_once(context);
    for (long n = 0; n < reads; n++) {
        struct timespec from, to;
        clock_gettime(CLOCK_MONOTONIC, &from);
        read_once(context);
        clock_gettime(CLOCK_MONOTONIC, &to);
        nanoseconds[n] = (to.tv_sec - from.tv_sec) * 1000000000L + to.tv_nsec - from.tv_nsec;
    }
    for (long n = 0; n < reads; n++)
        printf("%ld\n", nanoseconds[n]);
    modbus_close(context);
    return 0;
}

static int hold(const char *address, int port, long count) {
    for (long n = 0; n < count; n++)
        read_once(connected(address, port));
    printf("held\n");
    fflush(stdout);
    pause();
    return 0;
}

int main(int count, char **words) {
    if (count == 5 && !strcmp(words[1], "server"))
        serve(words[2], atoi(words[3]), atol(words[4]));
    if (count == 5 && !strcmp(words[1], "client"))
        return measure(words[2], atoi(words[3]), atol(words[4]));
    if (count == 5 && !strcmp(words[1], "hold"))
        return hold(words[2], atoi(words[3]), atol(words[4]));
    fprintf(stderr, "usage: modbus server|client|hold ADDRESS PORT DELAY|READS|COUNT\n");
    return 2;
}
