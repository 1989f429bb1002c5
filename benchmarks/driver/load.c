/* A load generator: opens streams, reads what comes, measures how late it is.
 *
 *     load PORT STREAMS RATE PENDING REQUEST
 *
 * opens STREAMS connections to PORT, RATE a second (0: at once), never more than PENDING (0: any number) without a first
 * event, and sends REQUEST on each, with every "{n}" in it replaced by the stream's number. One line on stdin, one JSON
 * line on stdout:
 *     (by itself)  {"at": "opened", ...}  once every stream had its first event or failed
 *     mark         {"at": "mark", ...}    what happened since the last mark
 *     stop, EOF    {"at": "end", ...}     everything closed; also by itself when all streams have ended
 * Latency is the time in an event's text ("t=<CLOCK_MONOTONIC, ns>") against the clock after the recv that brought it.
 * A stream's first event is counted from when it should have been opened, not from when it was: a server that keeps us
 * from connecting must not look quicker for it.
 */

#include "common.h"

#define LINE_MAX_BYTES 4096
#define READ_BYTES 262144
#define FIRST_EVENT_MAX (10 * SECOND)

enum state { UNOPENED, CONNECTING, HEAD, SIZE, DATA, DATA_END, UNFRAMED, OVER };

struct stream {
    int fd;
    enum state state;
    bool told, complete;
    uint64_t began;
    long left_in_chunk;
    char *line; /* an unfinished line, or the unfinished head */
    size_t line_length;
};

/* Logarithmic with 64 steps an octave: what it says is at most 1.6 % below the truth. */
struct histogram {
    uint32_t slots[60 * 64];
    uint64_t count, max;
};

static struct stream *streams;
static long stream_count, opened, over, pending, open_now;
static long refused, dropped, failed, completed;
static uint64_t first_start, gap, marked_at;
static long events;
static long pending_max;
static struct histogram first_event, added;
static const char *request;
static struct sockaddr_in server;
static uint64_t clock_now;

/* -- measuring -- */

static unsigned slot_of(uint64_t value) {
    if (value < 64) return (unsigned)value;
    unsigned octave = 63u - (unsigned)__builtin_clzll(value);
    return (octave - 5) * 64 + (unsigned)((value >> (octave - 6)) & 63);
}

static uint64_t value_of(unsigned slot) {
    if (slot < 64) return slot;
    return (uint64_t)(64 + slot % 64) << (slot / 64 - 1);
}

static void record(struct histogram *h, uint64_t value) {
    h->slots[slot_of(value)]++;
    h->count++;
    if (value > h->max) h->max = value;
}

static double quantile_ms(const struct histogram *h, double share) {
    uint64_t seen = 0;
    for (unsigned slot = 0; slot < 60 * 64; slot++) {
        seen += h->slots[slot];
        if (h->count && (double)seen >= share * (double)h->count) return (double)value_of(slot) / 1e6;
    }
    return 0;
}

static void print_histogram(const char *name, struct histogram *h) {
    printf(", \"%s\": {\"count\": %llu, \"p50\": %.3f, \"p99\": %.3f, \"max\": %.3f}", name, (unsigned long long)h->count,
           quantile_ms(h, 0.5), quantile_ms(h, 0.99), (double)h->max / 1e6);
    memset(h, 0, sizeof *h);
}

static double cpu_seconds(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* Counts of streams are totals; events, seconds and both histograms (ms) are since the last report. */
static void report(const char *at) {
    uint64_t moment = now();
    double seconds = (double)(moment - marked_at) / 1e9;
    printf("{\"at\": \"%s\", \"seconds\": %.6f, \"cpu_seconds\": %.6f", at, seconds, cpu_seconds());
    printf(", \"streams\": %ld, \"open\": %ld, \"completed\": %ld", opened, open_now, completed);
    printf(", \"refused\": %ld, \"dropped\": %ld, \"failed\": %ld", refused, dropped, failed);
    printf(", \"events\": %ld, \"events_per_second\": %.1f", events, seconds > 0 ? (double)events / seconds : 0);
    print_histogram("first_event_ms", &first_event);
    print_histogram("added_ms", &added);
    printf("}\n");
    events = 0;
    marked_at = moment;
}

/* -- a stream's end -- */

static void finish(struct stream *s, long *count) {
    if (!s->told) pending--;
    ++*count;
    over++;
    if (s->state > CONNECTING) open_now--;
    close(s->fd);
    free(s->line);
    s->line = NULL;
    s->state = OVER;
}

static void end(struct stream *s) {
    finish(s, s->complete ? &completed : s->state == HEAD ? &refused : &dropped);
}

/* -- what comes -- */

static void take_event(struct stream *s, const char *line, size_t length) {
    if (!s->told) {
        s->told = true;
        pending--;
        record(&first_event, clock_now - s->began);
    }
    const char *time = memmem(line, length, "\"t=", 3);
    if (time != NULL) {
        uint64_t sent = 0;
        for (time += 3; *time >= '0' && *time <= '9'; time++) sent = sent * 10 + (uint64_t)(*time - '0');
        record(&added, clock_now > sent ? clock_now - sent : 0);
        events++;
    } else if (memmem(line, length, "\"complete\"", 10) != NULL) {
        s->complete = true;
    } else if (memmem(line, length, "\"type\":\"error\"", 14) != NULL || memmem(line, length, "\"type\": \"error\"", 15) != NULL) {
        finish(s, &failed);
    }
}

static void take_line(struct stream *s, const char *line, size_t length) {
    if (length > 5 && memcmp(line, "data:", 5) == 0) take_event(s, line, length);
}

static void keep(struct stream *s, const char *data, size_t size) {
    if (s->line == NULL) must((s->line = malloc(LINE_MAX_BYTES + 1)) != NULL, "malloc");
    if (s->line_length + size > LINE_MAX_BYTES) {
        fprintf(stderr, "a line of more than %d bytes\n", LINE_MAX_BYTES);
        exit(1);
    }
    memcpy(s->line + s->line_length, data, size);
    s->line_length += size;
}

static void take_content(struct stream *s, const char *data, size_t size) {
    const char *after = data + size;
    while (data < after) {
        const char *line_end = memchr(data, '\n', (size_t)(after - data));
        if (line_end == NULL) {
            keep(s, data, (size_t)(after - data));
            return;
        }
        if (s->line_length) {
            keep(s, data, (size_t)(line_end - data));
            take_line(s, s->line, s->line_length);
            s->line_length = 0;
        } else {
            take_line(s, data, (size_t)(line_end - data));
        }
        if (s->state == OVER) return;
        data = line_end + 1;
    }
}

/* Bytes up to `mark` go to the line buffer; the position after it, or NULL when it has not come. */
static const char *keep_until(struct stream *s, const char *data, const char *after, const char *mark) {
    size_t length = strlen(mark), before = s->line_length;
    keep(s, data, (size_t)(after - data) > LINE_MAX_BYTES / 2 ? LINE_MAX_BYTES / 2 : (size_t)(after - data));
    char *at = memmem(s->line, s->line_length, mark, length);
    if (at == NULL) return NULL;
    s->line_length = (size_t)(at - s->line);
    s->line[s->line_length] = '\0';
    return data + (s->line_length + length - before);
}

static const char *take_head(struct stream *s, const char *data, const char *after) {
    const char *rest = keep_until(s, data, after, "\r\n\r\n");
    if (rest == NULL) return after;
    if (strncmp(s->line, "HTTP/1.1 200", 12) != 0) {
        finish(s, &refused);
        return after;
    }
    s->state = strcasestr(s->line, "\r\ntransfer-encoding: chunked") ? SIZE : UNFRAMED;
    s->line_length = 0;
    return rest;
}

/* A chunk's size line; it may be cut anywhere, but its digits are at most 8. `left_in_chunk` gathers them. */
static const char *take_size(struct stream *s, const char *data, const char *after) {
    for (; data < after; data++) {
        char c = *data;
        if (c == '\n') {
            s->state = DATA;
            if (s->left_in_chunk == 0) end(s);
            return data + 1;
        }
        if (c == '\r') continue;
        int digit = c <= '9' ? c - '0' : (c | 32) - 'a' + 10;
        s->left_in_chunk = s->left_in_chunk * 16 + digit;
    }
    return data;
}

static const char *take_data(struct stream *s, const char *data, const char *after) {
    long size = after - data < s->left_in_chunk ? after - data : s->left_in_chunk;
    take_content(s, data, (size_t)size);
    s->left_in_chunk -= size;
    if (s->left_in_chunk == 0 && s->state == DATA) s->state = DATA_END;
    return data + size;
}

static void take(struct stream *s, const char *data, const char *after) {
    while (data < after && s->state != OVER) {
        if (s->state == HEAD) {
            data = take_head(s, data, after);
        } else if (s->state == SIZE) {
            data = take_size(s, data, after);
        } else if (s->state == DATA) {
            data = take_data(s, data, after);
        } else if (s->state == DATA_END) {
            if (*data++ == '\n') s->state = SIZE;
        } else {
            take_content(s, data, (size_t)(after - data));
            return;
        }
    }
}

static void read_stream(struct stream *s) {
    static char buffer[READ_BYTES];
    ssize_t size = recv(s->fd, buffer, sizeof buffer - 1, MSG_DONTWAIT);
    if (size < 0 && errno == EAGAIN) return;
    clock_now = now();
    if (size <= 0) {
        end(s);
        return;
    }
    buffer[size] = '\0';
    take(s, buffer, buffer + size);
}

/* -- opening -- */

static size_t filled_in(char *into, size_t size, long number) {
    size_t at = 0;
    for (const char *from = request; *from && at + 24 < size; ) {
        if (strncmp(from, "{n}", 3) == 0) {
            at += (size_t)sprintf(into + at, "%ld", number);
            from += 3;
        } else {
            into[at++] = *from++;
        }
    }
    return at;
}

static void ask(struct stream *s) {
    char text[8192];
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &length);
    size_t size = filled_in(text, sizeof text, s - streams);
    if (error != 0 || send(s->fd, text, size, MSG_DONTWAIT) != (ssize_t)size) {
        finish(s, &refused);
        return;
    }
    s->state = HEAD;
    open_now++;
    watch(s->fd, EPOLLIN, s, EPOLL_CTL_MOD);
}

static void open_next(uint64_t planned) {
    struct stream *s = &streams[opened++];
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    must(s->fd >= 0, "socket");
    s->state = CONNECTING;
    s->began = planned;
    pending++;
    without_delay(s->fd);
    watch(s->fd, EPOLLOUT, s, EPOLL_CTL_ADD);
    if (connect(s->fd, (struct sockaddr *)&server, sizeof server) != 0 && errno != EINPROGRESS) finish(s, &refused);
}

static uint64_t open_due(void) {
    while (opened < stream_count && (pending_max == 0 || pending < pending_max)) {
        uint64_t planned = first_start + (uint64_t)opened * gap, moment = now();
        if (planned > moment) return planned;
        open_next(pending_max ? moment : planned);
    }
    return NEVER;
}

static void give_up_on_silent(void) {
    uint64_t moment = now();
    for (long i = 0; i < opened; i++) {
        struct stream *s = &streams[i];
        if (s->state != OVER && !s->told && moment - s->began > FIRST_EVENT_MAX && moment > s->began) finish(s, &failed);
    }
}

/* -- the one who started us -- */

static void leave(void) {
    report("end");
    exit(0);
}

static void obey(void) {
    char line[64];
    ssize_t size = read(STDIN_FILENO, line, sizeof line);
    if (size <= 0 || line[0] == 's') leave();
    report("mark");
}

int main(int argc, char **argv) {
    if (argc != 6) return 2;
    set_up();
    server = loopback(atoi(argv[1]));
    stream_count = atol(argv[2]);
    gap = atof(argv[3]) > 0 ? (uint64_t)((double)SECOND / atof(argv[3])) : 0;
    pending_max = atol(argv[4]);
    request = argv[5];
    must((streams = calloc((size_t)stream_count, sizeof *streams)) != NULL, "calloc");
    int timer = new_alarm(), said_opened = 0, control = STDIN_FILENO;
    watch(control, EPOLLIN, &control, EPOLL_CTL_ADD);
    watch(timer, EPOLLIN, &timer, EPOLL_CTL_ADD);
    first_start = marked_at = now();
    uint64_t next_look = first_start + SECOND;
    struct epoll_event ready[512];
    for (;;) {
        uint64_t next_open = open_due();
        set_alarm(timer, next_open < next_look ? next_open : next_look);
        int count = epoll_wait(poller, ready, 512, -1);
        must(count >= 0 || errno == EINTR, "epoll_wait");
        for (int i = 0; i < count; i++) {
            void *whose = ready[i].data.ptr;
            if (whose == &control) {
                obey();
            } else if (whose != &timer) {
                struct stream *s = whose;
                if (s->state == CONNECTING) ask(s);
                else if (s->state != OVER) read_stream(s);
            }
        }
        if (now() >= next_look) {
            give_up_on_silent();
            next_look = now() + SECOND;
        }
        if (!said_opened && opened == stream_count && pending == 0) {
            said_opened = 1;
            report("opened");
        }
        if (over == stream_count) leave();
    }
}
