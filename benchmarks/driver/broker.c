/* A broker stand-in that costs next to nothing: POST /api/v1/message, GET /api/v1/stream and /api/v1/queue, events with ids.
 *
 * What an answer consists of is written in the message itself and comes back inside the message id, so that nothing has
 * to be remembered between the two calls:
 *     "mode=rate rate=200 count=2000 bytes=80"   events a second, events in all, characters of text in each
 *     "mode=saturate count=100000 bytes=80"      quiet until SIGUSR1, then as fast as the socket takes them
 *     "mode=idle"                                a comment every 15 s until SIGUSR1, then the answer's end
 * Every event is one HTTP chunk and, except in saturate, one send. Prints its port. With the argument "unnumbered" its
 * events have no ids, and its answer to GET /api/v1/queue/<user> says so.
 */

#include "common.h"

#define REQUEST_MAX 8192
#define PING (15 * SECOND)
#define EVENT_MAX 4096
#define BATCH 16384        /* bytes a stream gets in one turn when saturating */
#define SATURATE_BUFFER 32768 /* bytes of SO_SNDBUF then: what waits in there counts as latency */

enum mode { NONE, RATE, SATURATE, IDLE };

struct connection {
    int fd;
    char request[REQUEST_MAX + 1];
    size_t received;
    char *out;
    size_t out_from, out_to, out_size;
    uint32_t watched;
    enum mode mode;
    bool will_saturate; /* IDLE until the signal, so that opening streams need not compete with full ones. */
    uint64_t interval, due; /* ns */
    long id, left;
    int bytes;
    char message_id[64];
    size_t place; /* in the heap; streams of RATE and IDLE are in it */
};

static struct connection **heap;
static size_t heap_count, heap_size;
static long messages;
static bool numbered = true;
static volatile sig_atomic_t signalled;
static char filler[EVENT_MAX];

/* -- a heap of streams, the one that is due first on top -- */

static void put(size_t place, struct connection *c) {
    heap[place] = c;
    c->place = place;
}

static void sift(size_t place) {
    struct connection *c = heap[place];
    while (place > 0 && heap[(place - 1) / 2]->due > c->due) {
        put(place, heap[(place - 1) / 2]);
        place = (place - 1) / 2;
    }
    for (;;) {
        size_t child = 2 * place + 1;
        if (child >= heap_count) break;
        if (child + 1 < heap_count && heap[child + 1]->due < heap[child]->due) child++;
        if (heap[child]->due >= c->due) break;
        put(place, heap[child]);
        place = child;
    }
    put(place, c);
}

static void schedule(struct connection *c) {
    if (heap_count == heap_size) {
        heap_size = heap_size ? 2 * heap_size : 1024;
        must((heap = realloc(heap, heap_size * sizeof *heap)) != NULL, "realloc");
    }
    heap[heap_count++] = c;
    c->place = heap_count - 1;
    sift(c->place);
}

static void unschedule(struct connection *c) {
    struct connection *last = heap[--heap_count];
    if (last == c) return;
    put(c->place, last);
    sift(last->place);
}

/* -- writing -- */

static void end_stream(struct connection *c) {
    if (c->mode == RATE || c->mode == IDLE) unschedule(c);
    c->mode = NONE;
}

static void hang_up(struct connection *c) {
    end_stream(c);
    close(c->fd);
    free(c->out);
    free(c);
}

static void append(struct connection *c, const char *data, size_t size) {
    if (c->out_from == c->out_to) c->out_from = c->out_to = 0;
    while (c->out_to + size > c->out_size) {
        c->out_size = c->out_size ? 2 * c->out_size : 1024;
        must((c->out = realloc(c->out, c->out_size)) != NULL, "realloc");
    }
    memcpy(c->out + c->out_to, data, size);
    c->out_to += size;
}

static void append_chunk(struct connection *c, const char *data, int size) {
    char head[16];
    append(c, head, (size_t)snprintf(head, sizeof head, "%x\r\n", size));
    append(c, data, (size_t)size);
    append(c, "\r\n", 2);
}

static void append_event(struct connection *c, const char *name, const char *data) {
    char frame[EVENT_MAX + 256];
    int size = numbered ? snprintf(frame, sizeof frame, "event: %s\nid: %ld\ndata: %s\n\n", name, ++c->id, data)
                        : snprintf(frame, sizeof frame, "event: %s\ndata: %s\n\n", name, data);
    append_chunk(c, frame, size);
}

static void append_progress(struct connection *c) {
    char data[EVENT_MAX + 64];
    int missing = c->bytes - 18; /* less the time, which has some 18 characters */
    snprintf(data, sizeof data, "{\"type\":\"progress\",\"text\":\"t=%llu %.*s\"}", (unsigned long long)now(),
             missing > 0 ? missing : 0, filler);
    append_event(c, "message", data);
}

static void append_end(struct connection *c) {
    append_event(c, "message",
                 "{\"type\":\"complete\",\"response\":{\"responses\":[\"ok\"],\"response_language\":\"en\","
                 "\"voice_audio_base64\":null}}");
    char data[96];
    snprintf(data, sizeof data, "{\"message_id\": \"%s\"}", c->message_id);
    append_event(c, "done", data);
    append(c, "0\r\n\r\n", 5);
}

static void watch_for(struct connection *c, uint32_t events) {
    if (events == c->watched) return;
    watch(c->fd, events, c, EPOLL_CTL_MOD);
    c->watched = events;
}

/* False when the reader is gone and `c` with it. */
static bool flush(struct connection *c) {
    while (c->out_from < c->out_to) {
        ssize_t sent = send(c->fd, c->out + c->out_from, c->out_to - c->out_from, MSG_DONTWAIT);
        if (sent < 0 && errno == EAGAIN) break;
        if (sent <= 0) {
            hang_up(c);
            return false;
        }
        c->out_from += (size_t)sent;
    }
    bool more = c->out_from < c->out_to || c->mode == SATURATE;
    watch_for(c, more ? EPOLLIN | EPOLLOUT : EPOLLIN);
    return true;
}

/* -- what is due -- */

static void saturate(struct connection *c) {
    if (c->out_from == c->out_to) {
        while (c->left > 0 && c->out_to - c->out_from < BATCH) {
            append_progress(c);
            c->left--;
        }
        if (c->left == 0) {
            append_end(c);
            end_stream(c);
        }
    }
    flush(c);
}

static void tell(struct connection *c) {
    if (c->mode == IDLE) {
        append_chunk(c, ": ping\n\n", 8);
        c->due += PING;
    } else {
        append_progress(c);
        c->due += c->interval;
        if (--c->left == 0) {
            append_end(c);
            end_stream(c);
        }
    }
    if (c->mode != NONE) sift(c->place);
    flush(c);
}

static void begin_to_saturate(struct connection *c) {
    int size = SATURATE_BUFFER;
    setsockopt(c->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    c->mode = SATURATE;
    flush(c);
}

static void end_idleness(void) {
    signalled = 0;
    size_t count = heap_count;
    struct connection **all = malloc((count + 1) * sizeof *all);
    must(all != NULL, "malloc");
    memcpy(all, heap, count * sizeof *all);
    for (size_t i = 0; i < count; i++) {
        struct connection *c = all[i];
        if (c->mode != IDLE) continue;
        end_stream(c);
        if (c->will_saturate) {
            begin_to_saturate(c);
        } else {
            append_end(c);
            flush(c);
        }
    }
    free(all);
}

/* -- requests -- */

static long number(const char *text, const char *name, long otherwise) {
    const char *at = strstr(text, name);
    return at ? atol(at + strlen(name)) : otherwise;
}

static void refuse(struct connection *c) {
    static const char answer[] = "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 22\r\n\r\n"
                                 "{\"detail\":\"Not Found\"}";
    append(c, answer, sizeof answer - 1);
    flush(c);
}

static void show_queue(struct connection *c) {
    char answer[256];
    const char *json = numbered ? "{\"queue_length\":0,\"is_processing\":false,\"current_message_id\":null,\"messages\":[]}"
                                : "{\"queue_length\":0,\"is_processing\":false,\"current_message_id\":null}";
    append(c, answer,
           (size_t)snprintf(answer, sizeof answer,
                            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s", strlen(json),
                            json));
    flush(c);
}

static void take_message(struct connection *c, const char *body) {
    char json[256], answer[512];
    char mode = strstr(body, "mode=saturate") ? 's' : strstr(body, "mode=idle") ? 'i' : 'r';
    int size = snprintf(json, sizeof json,
                        "{\"status\":\"queued\",\"message_id\":\"m%ld-%c-%ld-%ld-%ld\",\"queue_position\":1,\"responses\":null,"
                        "\"response_language\":null,\"voice_audio_base64\":null}",
                        ++messages, mode, number(body, "rate=", 10), number(body, "count=", 10), number(body, "bytes=", 80));
    append(c, answer,
           (size_t)snprintf(answer, sizeof answer,
                            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", size, json));
    flush(c);
}

static void open_stream(struct connection *c, const char *path, const char *headers) {
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
                               "Cache-Control: no-store\r\nTransfer-Encoding: chunked\r\n\r\n";
    const char *id = strstr(path, "message_id=");
    char mode;
    long serial, rate;
    if (id == NULL || sscanf(id, "message_id=m%ld-%c-%ld-%ld-%d", &serial, &mode, &rate, &c->left, &c->bytes) != 5) {
        refuse(c);
        return;
    }
    snprintf(c->message_id, sizeof c->message_id, "%.*s", (int)strcspn(id + 11, "& "), id + 11);
    if (c->bytes > EVENT_MAX - 256) c->bytes = EVENT_MAX - 256;
    const char *last = strcasestr(headers, "\r\nlast-event-id:");
    c->id = last ? atol(last + 16) : 0;
    append(c, head, sizeof head - 1);
    if (c->id < 2) {
        char data[96];
        c->id = 0;
        snprintf(data, sizeof data, "{\"message_id\": \"%s\"}", c->message_id);
        append_event(c, "queued", data);
        append_event(c, "processing", "");
    } else {
        c->left -= c->id - 2;
    }
    if (c->left < 1) c->left = 1;
    c->mode = mode == 'r' ? RATE : IDLE;
    c->will_saturate = mode == 's';
    c->interval = SECOND / (uint64_t)(rate > 0 ? rate : 1);
    /* Each stream has a phase of its own: streams that tick together would measure the burst and not the server. */
    c->due = now() + (c->mode == IDLE ? PING : c->interval * (uint64_t)(serial * 7919 % 1000) / 1000);
    schedule(c);
    flush(c);
}

/* A whole request if there is one: headers, and a body as long as Content-Length says. One at a time, nothing pipelined. */
static void receive(struct connection *c) {
    ssize_t size = recv(c->fd, c->request + c->received, REQUEST_MAX - c->received, MSG_DONTWAIT);
    if (size < 0 && errno == EAGAIN) return;
    if (size <= 0) {
        hang_up(c);
        return;
    }
    c->received += (size_t)size;
    c->request[c->received] = '\0';
    char *body = strstr(c->request, "\r\n\r\n");
    if (body == NULL) return;
    body += 4;
    const char *length = strcasestr(c->request, "\r\ncontent-length:");
    if (length != NULL && length < body && c->received < (size_t)(body - c->request) + (size_t)atol(length + 17)) return;
    c->received = 0;
    if (strncmp(c->request, "POST /api/v1/message ", 21) == 0) {
        take_message(c, body);
    } else if (strncmp(c->request, "GET /api/v1/queue/", 18) == 0 && c->mode == NONE) {
        show_queue(c);
    } else if (strncmp(c->request, "GET /api/v1/stream?", 19) == 0 && c->mode == NONE) {
        char *headers = strstr(c->request, "\r\n");
        open_stream(c, c->request, headers);
    } else {
        refuse(c);
    }
}

static void accept_all(int listener) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct connection *c = calloc(1, sizeof *c);
        must(c != NULL, "calloc");
        c->fd = fd;
        c->watched = EPOLLIN;
        without_delay(fd);
        watch(fd, EPOLLIN, c, EPOLL_CTL_ADD);
    }
    must(errno == EAGAIN || errno == ECONNABORTED, "accept");
}

static int listen_on_loopback(void) {
    struct sockaddr_in address = loopback(0);
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    must(listener >= 0 && bind(listener, (struct sockaddr *)&address, size) == 0 && listen(listener, 4096) == 0, "listen");
    must(getsockname(listener, (struct sockaddr *)&address, &size) == 0, "getsockname");
    printf("%d\n", ntohs(address.sin_port));
    return listener;
}

static void on_signal(int number) {
    (void)number;
    signalled = 1;
}

int main(int count_of_arguments, char **arguments) {
    numbered = count_of_arguments < 2 || strcmp(arguments[1], "unnumbered") != 0;
    set_up();
    memset(filler, 'x', sizeof filler);
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGUSR1, &action, NULL);
    sigset_t all, none; /* Blocked but for the wait: a signal just before it would wait for the next event. */
    sigemptyset(&none);
    sigemptyset(&all);
    sigaddset(&all, SIGUSR1);
    sigprocmask(SIG_BLOCK, &all, NULL);
    int listener = listen_on_loopback(), timer = new_alarm();
    watch(listener, EPOLLIN, &listener, EPOLL_CTL_ADD);
    watch(timer, EPOLLIN, &timer, EPOLL_CTL_ADD);
    struct epoll_event events[512];
    for (;;) {
        set_alarm(timer, heap_count ? heap[0]->due : NEVER);
        int count = epoll_pwait(poller, events, 512, -1, &none);
        must(count >= 0 || errno == EINTR, "epoll_pwait");
        if (signalled) {
            end_idleness();
            continue; /* What was reported may be of a connection that is gone now; it is reported again. */
        }
        for (int i = 0; i < count; i++) {
            void *whose = events[i].data.ptr;
            if (whose == &listener) {
                accept_all(listener);
            } else if (whose != &timer) {
                struct connection *c = whose;
                if (events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP)) receive(c);
                else if (c->mode == SATURATE) saturate(c);
                else flush(c);
            }
        }
        uint64_t moment = now();
        while (heap_count && heap[0]->due <= moment) tell(heap[0]);
    }
}
