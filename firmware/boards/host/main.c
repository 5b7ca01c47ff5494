/* The host board on a TCP port of this machine: `pe_host PORT FOLDER`. Port 0 takes a free one; {"port": N} says which.
 * Where its standard input is a pipe, it ends when the other end closes: whoever holds that leaves no board behind. */
#define _POSIX_C_SOURCE 200809L

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host.h"
#include "pe_device.h"
#include "pe_link.h"

static int client = -1;
static const char *folder;

static void hang_up(void)
{
    close(client);
    client = -1;
}

static void send_all(const uint8_t *data, uint32_t bytes)
{
    while (bytes > 0 && client >= 0) {
        const ssize_t sent = send(client, data, bytes, 0);
        if (sent > 0) {
            data += sent;
            bytes -= (uint32_t)sent;
        } else if (errno != EINTR) {
            hang_up();
        }
    }
}

static int listen_on(const char *port)
{
    const int on = 1, server = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {0};
    socklen_t size = sizeof address;
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((uint16_t)strtoul(port, NULL, 10));
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(server, (struct sockaddr *)&address, size) != 0 || listen(server, 1) != 0 ||
        getsockname(server, (struct sockaddr *)&address, &size) != 0) {
        perror(port);
        exit(1);
    }
    printf("{\"port\": %u}\n", (unsigned)ntohs(address.sin_port));
    fflush(stdout);
    return server;
}

static void answer_call(int server)
{
    const int on = 1;
    client = accept(server, NULL, NULL);
    if (client >= 0)
        setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static void receive(void)
{
    uint8_t data[1024];
    const ssize_t bytes = recv(client, data, sizeof data, 0);
    if (bytes <= 0)
        hang_up();
    for (ssize_t k = 0; k < bytes; k++)
        pe_link_byte(data[k]);
}

static int is_pipe(int file)
{
    struct stat about;
    return fstat(file, &about) == 0 && S_ISFIFO(about.st_mode);
}

/* What comes on standard input means nothing; its end does. */
static void read_stdin(void)
{
    uint8_t data[1024];
    if (read(STDIN_FILENO, data, sizeof data) == 0)
        exit(0);
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: %s PORT FOLDER\n", argv[0]);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    folder = argv[2];
    host_send = send_all;
    host_open(folder);
    pe_link_start();
    const int server = listen_on(argv[1]), parent = is_pipe(STDIN_FILENO) ? STDIN_FILENO : -1; /* poll leaves out -1 */
    for (;;) {
        struct pollfd lines[2] = {{client >= 0 ? client : server, POLLIN, 0}, {parent, POLLIN, 0}};
        const int waits = pe_device_poll() ? 0 : -1; /* a running policy has no time to wait */
        if (poll(lines, 2, waits) > 0) {
            if (lines[1].revents)
                read_stdin();
            if (lines[0].revents && client < 0)
                answer_call(server);
            else if (lines[0].revents)
                receive();
        }
        if (host_resets) {
            host_resets = 0;
            host_open(folder);
            pe_link_start();
        }
    }
}
