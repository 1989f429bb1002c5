/* What both halves of the driver need: a clock, a precise alarm, sockets on loopback. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000ULL
#define NEVER UINT64_MAX

static int poller;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void must(bool good, const char *what) {
    if (!good) die(what);
}

/* CLOCK_MONOTONIC in nanoseconds: the same clock in both halves, so that its difference is a latency. */
static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

static void watch(int fd, uint32_t events, void *whose, int how) {
    struct epoll_event event = {.events = events, .data.ptr = whose};
    must(epoll_ctl(poller, how, fd, &event) == 0, "epoll_ctl");
}

/* epoll_wait counts in milliseconds, which would bunch 20,000 events a second into bursts; a timerfd does not. */
static void set_alarm(int timer, uint64_t moment) {
    if (moment == 0) moment = 1; /* 0 would switch it off. */
    struct itimerspec at = {.it_value = {.tv_sec = (time_t)(moment / SECOND), .tv_nsec = (long)(moment % SECOND)}};
    if (moment == NEVER) memset(&at, 0, sizeof at);
    must(timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL) == 0, "timerfd_settime");
}

static int new_alarm(void) {
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    must(timer >= 0, "timerfd_create");
    return timer;
}

static struct sockaddr_in loopback(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static void without_delay(int fd) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static void set_up(void) {
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* Nothing is left over when the one who started us is killed. */
    struct rlimit files;
    must(getrlimit(RLIMIT_NOFILE, &files) == 0, "getrlimit");
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    setvbuf(stdout, NULL, _IOLBF, 0);
    poller = epoll_create1(EPOLL_CLOEXEC);
    must(poller >= 0, "epoll_create1");
}
