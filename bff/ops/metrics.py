"""What is counted, for Prometheus: the one door of its library.

These are the process's own, like its loggers: whoever has something to count counts it here, and `/metrics` shows the sum.
Streams are counted once, at their end, since an event must cost nothing more. No label holds anybody's id, and each has
a bounded number of values: our own words, and the codes of errors.py.

Where several processes serve one port, PROMETHEUS_MULTIPROC_DIR (settings.py) has been set before this is imported: then
each counts in files there, and any of them answers for all, for those that are gone, too.
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
disable_created_metrics()  # type: ignore[no-untyped-call] # A second series for each counter, which nobody reads.

SHORT: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20)
LONG: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)

STREAMS_OPEN = Gauge("chat_streams_open", "Answers that are being told to a browser.", ["kind"], multiprocess_mode="livesum")
for _kind in ("chat", "conversation", "v1"):
    STREAMS_OPEN.labels(_kind)  # There from the start: where no process has any, it says 0 and does not vanish.
STREAMS_STARTED = Counter("chat_streams_started", "Streams, by whether they were started or resumed.", ["how", "kind"])
STREAMS_ENDED = Counter(
    "chat_streams_ended", "Streams by their end: complete, stopped, aborted, drained, or an error's code.", ["ended", "kind"]
)
EVENTS = Counter("chat_stream_events", "Events told to browsers.")
BYTES = Counter("chat_stream_bytes", "Bytes of bodies told to browsers.")
DROPPED = Counter("chat_stream_dropped_events", "Events of the broker's that no browser could have read.")
HEARTBEATS = Counter("chat_stream_heartbeats", "Heartbeats sent after silence.")
REPLAYED = Counter("chat_stream_replayed_events", "Events that had been there before the reader came back for them.")
RECONNECTS = Counter("chat_upstream_reconnects", "StreamLimiter to the broker that broke and were taken up again.")
FIRST_EVENT = Histogram("chat_stream_first_event_seconds", "From the request to the first event of its stream.", buckets=SHORT)
_OF_A_STREAM = (EVENTS, BYTES, DROPPED, HEARTBEATS, RECONNECTS, REPLAYED)
"""In the order of `StreamEnd`."""
DURATION = Histogram("chat_stream_duration_seconds", "From the request to the end of its stream.", buckets=LONG)
ENQUEUE = Histogram("chat_enqueue_seconds", "To leave a message with the broker.", buckets=SHORT)
UPSTREAM_ERRORS = Counter("chat_upstream_errors", "Calls that failed, by service and code.", ["upstream", "code"])
CUT = Counter("chat_readers_cut", "Clients that did not read: slow, or drained at the end of a drain.", ["why"])
REFUSED = Counter("chat_requests_refused", "Requests answered with an error, by its code.", ["code"])

QUEUE_WAIT = Histogram("chat_broker_queue_wait_seconds", "From a message's being left to its first claim.", buckets=LONG)
ANSWER = Histogram("chat_broker_answer_seconds", "From the claim of a message to the end of its answer.", buckets=LONG)
ANSWERS = Counter("chat_broker_answers", "Answers by how the worker ended them, and by their kind.", ["result", "kind"])
LEASES_LOST = Counter("chat_broker_leases_lost", "Answers whose worker found that another one has them now.")
REAPED = Counter("chat_broker_reaped", "Messages whose worker died: ended, or claimed again.", ["outcome"])
LAG = Histogram("chat_hub_lag_seconds", "How late this process's pulse was: somebody kept all others waiting.", buckets=SHORT)

Upstream = Literal["broker", "engine"]
QueueSizes = Callable[[], dict[str, float]]
"""What the queue holds at this moment, by the metric's name; {} where it cannot be asked."""


class StreamEnd(NamedTuple):
    """What there is to say of a stream when it is over."""

    kind: str
    """chat, conversation or v1."""
    ended: str
    """complete, stopped, aborted, drained, or an error's code."""
    events: int
    bytes: int
    dropped: int
    heartbeats: int
    reconnects: int
    replayed: int


def count_stream(end: StreamEnd, first: float | None, seconds: float) -> None:
    """`first`: seconds until its first event, if there was one."""
    STREAMS_OPEN.labels(end.kind).dec()
    STREAMS_ENDED.labels(end.ended, end.kind).inc()
    for counter, count in zip(_OF_A_STREAM, end[2:], strict=True):
        counter.inc(count)
    if first is not None:
        FIRST_EVENT.observe(first)
    DURATION.observe(seconds)


@contextmanager
def failures(upstream: Upstream) -> Iterator[None]:
    """Counts the UpstreamFailure that one call raises."""
    try:
        yield
    except UpstreamFailure as problem:
        UPSTREAM_ERRORS.labels(upstream, problem.code).inc()
        raise


@contextmanager
def timed(histogram: Histogram) -> Iterator[None]:
    """Of what succeeds: how long a refusal takes says nothing of the queue."""
    began = monotonic()
    yield
    histogram.observe(monotonic() - began)


def check(authorization: str, token: str, *, development: bool) -> None:
    """Raises Unauthorized; NotFound where nobody may look."""
    if not token and not development:
        raise NotFound
    if token and not hmac.compare_digest(authorization.encode("utf-8", "replace"), f"Bearer {token}".encode()):
        raise Unauthorized("The bearer token is missing or wrong.")


def exposition(folder: str, sizes: QueueSizes | None = None) -> bytes:
    """Everything, as Prometheus reads it. `folder`: PROMETHEUS_MULTIPROC_DIR, "" where this process is alone."""
    registry = CollectorRegistry()
    if folder:
        MultiProcessCollector(registry, path=folder)  # type: ignore[no-untyped-call]
    shown = [generate_latest(registry if folder else REGISTRY)]
    if sizes is not None:
        now = CollectorRegistry()
        now.register(_Sizes(sizes))
        shown.append(generate_latest(now))
    return b"".join(shown)


class _Sizes(Collector):
    def __init__(self, ask: QueueSizes) -> None:
        self._ask = ask

    def collect(self) -> Iterable[Metric]:
        for name, size in self._ask().items():
            yield GaugeMetricFamily(name, "Of the whole queue, whichever process is asked.", value=size)
