/* A Modbus server of the libmodbus stack: 100 holding registers, 100 coils, any unit; each connection a thread, one
 * mapping for all. Usage: ADDRESS PORT [own-exceptions]: then the program answers functions that it does not know by an
 * exception of its own, as many do, and libmodbus throws away nothing of what follows. */
#include <errno.h>
#include <modbus.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

static modbus_mapping_t *mapping;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *address;
static int port;
static int own_exceptions;

static int is_known(int function)
{
    return (function >= 1 && function <= 7) || (function >= 15 && function <= 17) || function == 22 || function == 23;
}

static void *serve(void *socket)
{
    modbus_t *modbus = modbus_new_tcp(address, port);
    uint8_t request[MODBUS_TCP_MAX_ADU_LENGTH];
    modbus_set_socket(modbus, (int) (long) socket);
    /* How long it waits before it throws away what follows a function that it does not know. */
    modbus_set_response_timeout(modbus, 0, 20000);
    for (;;) {
        int length = modbus_receive(modbus, request);
        if (length < 0)
            break;
        if (length > 0) {
            pthread_mutex_lock(&lock);
            if (own_exceptions && !is_known(request[modbus_get_header_length(modbus)]))
                modbus_reply_exception(modbus, request, MODBUS_EXCEPTION_ILLEGAL_FUNCTION);
            else
                modbus_reply(modbus, request, length, mapping);
            pthread_mutex_unlock(&lock);
        }
    }
    modbus_close(modbus);
    modbus_free(modbus);
    return NULL;
}

int main(int count, char **arguments)
{
    if (count < 3)
        return 2;
    own_exceptions = count > 3;
    address = arguments[1];
    port = atoi(arguments[2]);
    mapping = modbus_mapping_new(100, 100, 100, 100);
    for (int at = 0; at < 100; at++) {
        mapping->tab_registers[at] = 1000 + at;
        mapping->tab_bits[at] = at % 2;
    }
    modbus_t *listener = modbus_new_tcp(address, port);
    int listening = modbus_tcp_listen(listener, 8);
    for (;;) {
        int socket = modbus_tcp_accept(listener, &listening);
        pthread_t thread;
        if (socket >= 0 && pthread_create(&thread, NULL, serve, (void *) (long) socket) == 0)
            pthread_detach(thread);
    }
}
