"""Prometheus metrics. Only this module imports prometheus_client.

The metrics are global to the process, like loggers. A stream's counters are updated once, at its end, to keep the cost per
event low. No label contains an id, and each has a bounded number of values, such as the codes of errors.py.

If several processes serve one port, PROMETHEUS_MULTIPROC_DIR (settings.py) is set before this module is imported: each process
then counts in files there, and `/metrics` of any process shows the sum, including processes that have ended.
"""

import hmac
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final, Literal, NamedTuple

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from bff.errors import NotFound, Unauthorized, UpstreamFailure

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
disable_created_metrics()  # type: ignore[no-untyped-call] # They would double the number of series.

SHORT_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20)
LONG_BUCKETS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)

STREAMS_OPEN = Gauge("chat_streams_open", "Open streams to clients.", ["kind"], multiprocess_mode="livesum")
for _kind in ("chat", "conversation", "v1"):
    STREAMS_OPEN.labels(_kind)  # Exported as 0 before the first stream.
STREAMS_STARTED = Counter("chat_streams_started", "Streams by kind, and whether they were started or resumed.", ["how", "kind"])
STREAMS_ENDED = Counter(
    "chat_streams_ended", "Ended streams by outcome: complete, stopped, aborted, drained, or an error code.", ["ended", "kind"]
)
EVENTS = Counter("chat_stream_events", "Events sent to clients.")
BYTES = Counter("chat_stream_bytes", "Bytes of stream bodies sent to clients.")
DROPPED = Counter("chat_stream_dropped_events", "Invalid events of the broker that were dropped.")
HEARTBEATS = Counter("chat_stream_heartbeats", "Heartbeats sent to clients.")
REPLAYED = Counter("chat_stream_replayed_events", "Events sent again from the log after a resume.")
RECONNECTS = Counter("chat_upstream_reconnects", "Broken streams to the broker that were reconnected.")
FIRST_EVENT = Histogram(
    "chat_stream_first_event_seconds", "Time from the request to the first event of its stream.", buckets=SHORT_BUCKETS
)
_PER_STREAM = (EVENTS, BYTES, DROPPED, HEARTBEATS, RECONNECTS, REPLAYED)
"""In the order of `StreamEnd`."""
DURATION = Histogram("chat_stream_duration_seconds", "Time from the request to the end of its stream.", buckets=LONG_BUCKETS)
ENQUEUE = Histogram("chat_enqueue_seconds", "Duration of successful calls that enqueue a message.", buckets=SHORT_BUCKETS)
UPSTREAM_ERRORS = Counter(
    "chat_upstream_errors", "Failed calls to upstream services, by service and error code.", ["upstream", "code"]
)
CUT = Counter("chat_readers_cut", "Aborted clients, by why: slow, or drained (at the end of a drain).", ["why"])
REFUSED = Counter("chat_requests_refused", "Requests that got an error response, by its code.", ["code"])

QUEUE_WAIT = Histogram(
    "chat_broker_queue_wait_seconds", "Time from enqueueing a message to its first claim.", buckets=LONG_BUCKETS
)
ANSWER = Histogram(
    "chat_broker_answer_seconds", "Time from the claim of a message to the end of its reply.", buckets=LONG_BUCKETS
)
ANSWERS = Counter("chat_broker_answers", "Replies by result and kind.", ["result", "kind"])
LEASES_LOST = Counter("chat_broker_leases_lost", "Replies that ended because their worker had lost its lease.")
REAPED = Counter("chat_broker_reaped", "Messages with an expired lease, by outcome: failed, or claimed again.", ["outcome"])
WEBHOOKS = Counter(
    "chat_webhook_tries", "Tries of webhooks by result: delivered, gone (410), retried, or failed (the last try).", ["result"]
)
WEBHOOK = Histogram("chat_webhook_seconds", "Duration of a webhook's try.", buckets=SHORT_BUCKETS)
LAG = Histogram(
    "chat_hub_lag_seconds", "Scheduling lag: how late a greenlet wakes up from a sleep of one second.", buckets=SHORT_BUCKETS
)

Upstream = Literal["broker", "engine"]
QueueSizes = Callable[[], dict[str, float]]
"""The current sizes of the queue by metric name; {} if it is unavailable."""


class StreamEnd(NamedTuple):
    """What is counted at the end of a stream."""

    kind: str
    """chat, conversation or v1."""
    ended: str
    """complete, stopped, aborted, drained, or an error code."""
    events: int
    bytes: int
    dropped: int
    heartbeats: int
    reconnects: int
    replayed: int


def count_stream(end: StreamEnd, first: float | None, seconds: float) -> None:
    """`first`: seconds until the first event, or None. `seconds`: until the end."""
    STREAMS_OPEN.labels(end.kind).dec()
    STREAMS_ENDED.labels(end.ended, end.kind).inc()
    for counter, count in zip(_PER_STREAM, end[2:], strict=True):
        counter.inc(count)
    if first is not None:
        FIRST_EVENT.observe(first)
    DURATION.observe(seconds)


@contextmanager
def count_failures(upstream: Upstream) -> Iterator[None]:
    """Counts an UpstreamFailure that is raised within."""
    try:
        yield
    except UpstreamFailure as error:
        UPSTREAM_ERRORS.labels(upstream, error.code).inc()
        raise


@contextmanager
def timed(histogram: Histogram) -> Iterator[None]:
    """Observes the duration unless an exception is raised."""
    started_at = monotonic()
    yield
    histogram.observe(monotonic() - started_at)


def check(authorization: str, token: str, *, development: bool) -> None:
    """Raises Unauthorized, or NotFound in production if no token is configured."""
    if not token and not development:
        raise NotFound
    if token and not hmac.compare_digest(authorization.encode("utf-8", "replace"), f"Bearer {token}".encode()):
        raise Unauthorized("The bearer token is missing or wrong.")


def exposition(folder: str, sizes: QueueSizes | None = None) -> bytes:
    """All metrics in the text format. `folder`: PROMETHEUS_MULTIPROC_DIR, or ""."""
    registry = CollectorRegistry()
    if folder:
        MultiProcessCollector(registry, path=folder)  # type: ignore[no-untyped-call]
    parts = [generate_latest(registry if folder else REGISTRY)]
    if sizes is not None:
        registry = CollectorRegistry()
        registry.register(_QueueSizesCollector(sizes))
        parts.append(generate_latest(registry))
    return b"".join(parts)


class _QueueSizesCollector(Collector):
    def __init__(self, sizes: QueueSizes) -> None:
        self._sizes = sizes

    def collect(self) -> Iterable[Metric]:
        for name, size in self._sizes().items():
            yield GaugeMetricFamily(name, "Of the whole queue, the same from every process.", value=size)
