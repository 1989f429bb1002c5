"""The queue in Redis: connections per process, and latency and CPU time of events from one process to another.

    .venv/bin/python benchmarks/redis_queue.py          # takes under two minutes; needs redis-server
    .venv/bin/python benchmarks/redis_queue.py --form cluster --primaries 3     # or --form sentinel

The writer and the reader are separate processes, patched for gevent like a worker. Latencies are differences of the machine's
wall clock.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from processes import free_port, running, wait_for_port

sys.path.insert(0, str(Path(__file__).parent.parent))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=2000, help="open at once in one process")
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--form", choices=("single", "sentinel", "cluster"), default="single")
    parser.add_argument("--primaries", type=int, default=3, help="of a cluster; each has a replica")
    parser.add_argument("--as-process", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--rate", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--logs", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.as_process:
        from bff.ops import monkey

        monkey.patch_all()
        {"reader": read, "writer": write}[options.as_process](options)
        return
    if options.form != "single":
        with distributed(options.form, options.primaries) as (url, urls):
            for rate, logs in ((1000, 200), (0, 200)):
                print(json.dumps(latency(url, rate, logs, options.seconds, urls)), flush=True)
        return
    with redis_server() as url:
        print(json.dumps(connections(url, options.streams)))
        for rate, logs in ((1000, 20), (1000, 200), (1000, 1000), (0, 20), (0, 200)):
            print(json.dumps(latency(url, rate, logs, options.seconds, [url])), flush=True)


@contextlib.contextmanager
def distributed(form: str, primaries: int) -> Iterator[tuple[str, list[str]]]:
    """Yields REDIS_URL, and the URLs of its servers. Each primary has a replica."""
    from tests.redis_sets import Cluster, SentinelSet

    with tempfile.TemporaryDirectory() as folder:
        servers = SentinelSet(Path(folder)) if form == "sentinel" else Cluster(Path(folder), primaries)
        with servers:
            yield servers.url, [node.url for node in servers.nodes]


@contextlib.contextmanager
def redis_server() -> Iterator[str]:
    program = shutil.which("redis-server")
    if program is None:
        sys.exit("redis-server is not installed: `make test-deps`")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        with running(command, None, output=subprocess.DEVNULL, errors=sys.stderr.fileno()) as process:
            wait_for_port(port, process, 10)
            yield f"redis://127.0.0.1:{port}/0"


def wait_for(condition: Callable[[], Any], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the condition was not met in time")
        time.sleep(0.02)


def connections(url: str, streams: int) -> dict[str, Any]:
    """Returns the maximum number of connections of a process with `streams` readers."""
    from bff.ops.redis import connect

    with connect(url) as client:
        base = len(client.client_list())
        with start("reader", url, logs=streams, rate=0, seconds=0) as reader:
            next_line(reader)
            maximum = 0
            for _ in range(50):
                maximum = max(maximum, len(client.client_list()) - base)
                time.sleep(0.02)
        client.flushall()
    return {"open streams": streams, "connections of their process": maximum}


def server_cpu(urls: list[str]) -> list[float]:
    """Seconds of each server so far."""
    from bff.ops.redis import connect

    seconds = []
    for url in urls:
        with connect(url) as client:
            usage: Any = client.info("cpu")
            seconds.append(usage["used_cpu_user"] + usage["used_cpu_sys"])
    return seconds


def latency(url: str, rate: float, logs: int, seconds: float, urls: list[str]) -> dict[str, Any]:
    """`rate`: events per second over all logs; 0: as many as possible. `urls`: of the servers."""
    before = server_cpu(urls)
    with start("reader", url, logs=logs, rate=rate, seconds=seconds) as reader:
        next_line(reader)
        with start("writer", url, logs=logs, rate=rate, seconds=seconds) as writer:
            result = {"rate": rate or "maximum", "logs": logs} | next_line(writer) | next_line(reader)
    used = [round(1e6 * (now - then) / result["written"], 1) for now, then in zip(server_cpu(urls), before, strict=True)]
    return result | {"server_cpu_us": max(used), "all_servers_cpu_us": round(sum(used), 1)}


def start(kind: str, url: str, **options: float) -> "contextlib.AbstractContextManager[subprocess.Popen[bytes]]":
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    command = [sys.executable, __file__, "--as-process", kind, "--url", url, *arguments]
    return running(command, None, output=subprocess.PIPE, errors=sys.stderr.fileno())


def next_line(process: "subprocess.Popen[bytes]") -> dict[str, Any]:
    """Waits for the next line of output, a JSON object."""
    assert process.stdout is not None
    content: dict[str, Any] = json.loads(process.stdout.readline())
    return content


def queue_at(url: str) -> Any:
    from bff.broker.queue.base import Limits
    from bff.broker.queue.redis import RedisQueue
    from bff.ops.redis import connect

    return RedisQueue(connect(url), Limits(log_bytes=2**40), 60.0)


def cpu() -> float:
    return sum(os.times()[:2])


def read(options: argparse.Namespace) -> None:
    """Enqueues the messages, follows each in a greenlet of its own, and prints the latencies."""
    import threading

    from bff.broker.queue.base import Message

    queue = queue_at(options.url)
    messages = [Message(str(uuid.uuid4()), f"user-{number}", {"message": ""}) for number in range(options.logs)]
    subscribed: list[Message] = []
    latencies: list[float] = []
    for message in messages:
        queue.enqueue(message, None, "enqueue")
    threads = [threading.Thread(target=follow, args=(queue, message, subscribed, latencies)) for message in messages]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(subscribed) == len(messages), 60)
    time.sleep(1)
    print(json.dumps({"ready": len(threads)}), flush=True)
    cpu_before = cpu()
    for thread in threads:
        thread.join()
    latencies.sort()
    count = len(latencies)
    percentiles = {f"p{part}_ms": round(1000 * latencies[min(count - 1, count * part // 100)], 2) for part in (50, 99)}
    print(json.dumps({"read": count, **percentiles, "reader_cpu_us": round(1e6 * (cpu() - cpu_before) / count)}), flush=True)


def follow(queue: Any, message: Any, subscribed: list[Any], latencies: list[float]) -> None:
    """Reads the log to its end. Adds each event's latency in seconds to `latencies`."""
    from bff.http import waiting

    waiter, after, ended = waiting.new_waiter(), "", False
    with queue.subscribe(message.user_id, message.id, waiter.wake):
        subscribed.append(message)
        while not ended:
            page, now = queue.read(message.user_id, message.id, after), time.time()
            latencies += [now - float(event.data) for event in page.events if event.event == "message" and event.data]
            after, ended = page.events[-1].id if page.events else after, page.ended
            if not (ended or page.has_more):
                waiter.wait()


def write(options: argparse.Namespace) -> None:
    """Claims all messages and appends events in turn, each with the current time."""
    import threading

    queue = queue_at(options.url)
    claims = [queue.claim(10.0) for _ in range(options.logs)]
    started_at, cpu_before, written = time.monotonic(), cpu(), [0]

    def append_in_turn(claims: list[Any], interval: float) -> None:
        next_at = time.monotonic()
        while time.monotonic() < started_at + options.seconds:
            for claim in claims:
                queue.append(claim, [("message", repr(time.time()))])
                written[0] += 1
                next_at += interval
                if interval:
                    time.sleep(max(0.0, next_at - time.monotonic()))

    count = 4
    interval = count / options.rate if options.rate else 0.0
    threads = [threading.Thread(target=append_in_turn, args=(claims[number::count], interval)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds, events = time.monotonic() - started_at, written[0]
    cpu_us = round(1e6 * (cpu() - cpu_before) / events)
    print(json.dumps({"written": events, "per_second": round(events / seconds), "writer_cpu_us": cpu_us}))
    for claim in claims:
        queue.finish(claim, [("message", "")])


if __name__ == "__main__":
    main()
