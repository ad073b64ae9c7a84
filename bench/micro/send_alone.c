/* What it costs to send alone: one thread gives the same bytes to 50 connections on loopback, again and again; no broker, no
 * MQTT, nothing is received. Another process reads them on another core.
 *
 *     cc -O2 -o /tmp/send_alone bench/micro/send_alone.c && /tmp/send_alone copy 120 && /tmp/send_alone pages 120
 *
 * `copy`: send(2) from a buffer that stays in the cache. `pages`: sendfile(2) from a memfd that is written once for all
 * connections and punched out afterwards, so that the kernel moves pages and copies nothing. The number is KiB per call.
 * Prints processor time of the sending process per 4 KiB sent; the first core sends, the second reads. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTIONS = 50, SECONDS = 3, READ_SIZE = 256 << 10 };

static void check(int is_good, const char *what) {
    if (is_good) return;
    perror(what);
    exit(1);
}

static double now(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

static void pin(int core) {
    cpu_set_t cores;
    CPU_ZERO(&cores);
    CPU_SET(core, &cores);
    check(sched_setaffinity(0, sizeof cores, &cores) == 0, "pinning");
}

/* Connects, and reads until all connections have ended. */
static void read_all(struct sockaddr_in address) {
    pin(1);
    int poll = epoll_create1(0), open = CONNECTIONS;
    char *bytes = malloc(READ_SIZE);
    for (int i = 0; i < CONNECTIONS; i++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        check(connect(fd, (void *)&address, sizeof address) == 0, "connecting");
        struct epoll_event event = {EPOLLIN, {.fd = fd}};
        check(epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event) == 0, "epoll");
    }
    while (open > 0) {
        struct epoll_event events[CONNECTIONS];
        int count = epoll_wait(poll, events, CONNECTIONS, -1);
        for (int i = 0; i < count; i++) {
            if (recv(events[i].data.fd, bytes, READ_SIZE, MSG_DONTWAIT) != 0) continue;
            close(events[i].data.fd);
            open--;
        }
    }
    exit(0);
}

int main(int count, char **words) {
    int pages = count == 3 && strcmp(words[1], "pages") == 0;
    size_t size = count == 3 ? strtoul(words[2], NULL, 10) << 10 : 0;
    if (size == 0 || (!pages && strcmp(words[1], "copy") != 0)) {
        fprintf(stderr, "usage: send_alone copy|pages KIB\n");
        return 2;
    }
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    check(bind(listener, (void *)&address, length) == 0 && listen(listener, CONNECTIONS) == 0, "listening");
    check(getsockname(listener, (void *)&address, &length) == 0, "listening");
    if (fork() == 0) read_all(address);
    pin(0);
    int poll = epoll_create1(0), sockets[CONNECTIONS], full[CONNECTIONS] = {0};
    for (int i = 0; i < CONNECTIONS; i++) {
        sockets[i] = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        int on = 1;
        setsockopt(sockets[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct epoll_event event = {EPOLLOUT | EPOLLET, {.fd = i}};
        check(epoll_ctl(poll, EPOLL_CTL_ADD, sockets[i], &event) == 0, "epoll");
    }
    char *bytes = memset(malloc(size), 7, size);
    int memory = memfd_create("sent", 0);
    size_t total = 0;
    double begun = now(CLOCK_MONOTONIC), used = now(CLOCK_PROCESS_CPUTIME_ID);
    while (now(CLOCK_MONOTONIC) - begun < SECONDS) {
        size_t sent[CONNECTIONS] = {0};
        if (pages) check(pwrite(memory, bytes, size, 0) == (ssize_t)size, "writing");
        for (int left = CONNECTIONS; left > 0;) {
            int moved = 0;
            for (int i = 0; i < CONNECTIONS; i++) {
                if (sent[i] == size || full[i]) continue;
                off_t at = sent[i];
                ssize_t done = pages ? sendfile(sockets[i], memory, &at, size - sent[i])
                                     : send(sockets[i], bytes + sent[i], size - sent[i], MSG_DONTWAIT);
                check(done >= 0 || errno == EAGAIN, "sending");
                if (done < 0) done = 0;
                sent[i] += done;
                total += done;
                moved |= done > 0;
                full[i] = sent[i] < size;
                left -= sent[i] == size;
            }
            struct epoll_event events[CONNECTIONS];
            int ready = left > 0 ? epoll_wait(poll, events, CONNECTIONS, moved ? 0 : -1) : 0;
            for (int i = 0; i < ready; i++) full[events[i].data.fd] = 0;
        }
        /* What is still on its way keeps its pages; new ones take their place. */
        if (pages) check(fallocate(memory, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, size) == 0, "punching");
    }
    used = now(CLOCK_PROCESS_CPUTIME_ID) - used;
    double megabytes = total / 1e6 / (now(CLOCK_MONOTONIC) - begun);
    printf("%s, %zu KiB a call: %.3f us of processor time per 4 KiB, %.0f MB/s\n", words[1], size >> 10,
           used * 1e6 / (total / 4096.0), megabytes);
    return 0;
}
