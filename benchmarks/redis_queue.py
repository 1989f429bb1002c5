"""What the queue in Redis costs and how fast it tells: connections of a process, and events from one process to another.

    .venv/bin/python benchmarks/redis_queue.py          # under two minutes; wants redis-server

The writer is a process of its own, patched for gevent as a worker is; the reader is another. Moments are the machine's
wall clock, which both read.
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
    with redis_server() as url:
        print(json.dumps(connections(url, options.streams)))
        for rate, logs in ((1000, 20), (1000, 200), (1000, 1000), (0, 20), (0, 200)):
            print(json.dumps(latency(url, rate, logs, options.seconds)), flush=True)


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
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("it does not come")
        time.sleep(0.02)


def connections(url: str, streams: int) -> dict[str, Any]:
    """Of a reader process with so many open streams, and of the same process when they have gone."""
    from bff.ops.redis import connect

    with connect(url) as client:
        base = len(client.client_list())
        with start("reader", url, logs=streams, rate=0, seconds=0) as reader:
            heard(reader)
            most = 0
            for _ in range(50):
                most = max(most, len(client.client_list()) - base)
                time.sleep(0.02)
        client.flushall()
    return {"open streams": streams, "connections of their process": most}


def latency(url: str, rate: float, logs: int, seconds: float) -> dict[str, Any]:
    """`rate`: events a second over all logs; 0: as many as there can be."""
    with start("reader", url, logs=logs, rate=rate, seconds=seconds) as reader:
        heard(reader)
        with start("writer", url, logs=logs, rate=rate, seconds=seconds) as writer:
            return {"rate": rate or "most", "logs": logs} | heard(writer) | heard(reader)


def start(kind: str, url: str, **options: float) -> "contextlib.AbstractContextManager[subprocess.Popen[bytes]]":
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    command = [sys.executable, __file__, "--as-process", kind, "--url", url, *arguments]
    return running(command, None, output=subprocess.PIPE, errors=sys.stderr.fileno())


def heard(process: "subprocess.Popen[bytes]") -> dict[str, Any]:
    """The next line that it says."""
    assert process.stdout is not None
    said: dict[str, Any] = json.loads(process.stdout.readline())
    return said


def queue_at(url: str) -> Any:
    from bff.broker.queue.base import Limits
    from bff.broker.queue.redis import RedisQueue
    from bff.ops.redis import connect

    return RedisQueue(connect(url), Limits(log_bytes=2**40), 60.0)


def cpu() -> float:
    return sum(os.times()[:2])


def read(options: argparse.Namespace) -> None:
    """Leaves the messages, follows each in a greenlet of its own, and says how late it heard."""
    import threading

    from bff.broker.queue.base import Message

    queue = queue_at(options.url)
    said = [Message(str(uuid.uuid4()), f"user-{number}", {"message": ""}) for number in range(options.logs)]
    listening: list[Message] = []
    late: list[float] = []
    for message in said:
        queue.enqueue(message, None, "enqueue")
    threads = [threading.Thread(target=follow, args=(queue, message, listening, late)) for message in said]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(listening) == len(said), 60)
    time.sleep(1)
    print(json.dumps({"ready": len(threads)}), flush=True)
    began = cpu()
    for thread in threads:
        thread.join()
    late.sort()
    figures = {f"p{part}_ms": round(1000 * late[min(len(late) - 1, len(late) * part // 100)], 2) for part in (50, 99)}
    print(json.dumps({"told": len(late), **figures, "reader_cpu_us": round(1e6 * (cpu() - began) / len(late))}), flush=True)


def follow(queue: Any, message: Any, listening: list[Any], late: list[float]) -> None:
    """To its end. `late`: seconds from the writing of each event, added as it is heard."""
    from bff.http import waiting

    waiter, after, over = waiting.new_waiter(), "", False
    with queue.listen(message.user_id, message.id, waiter.wake):
        listening.append(message)
        while not over:
            page, now = queue.read(message.user_id, message.id, after), time.time()
            late += [now - float(event.data) for event in page.events if event.event == "message" and event.data]
            after, over = page.events[-1].id if page.events else after, page.over
            if not (over or page.more):
                waiter.wait()


def write(options: argparse.Namespace) -> None:
    """Claims all that waits and writes in turns, each event with its moment."""
    import threading

    queue = queue_at(options.url)
    claims = [queue.claim(10.0) for _ in range(options.logs)]
    began, used, wrote = time.monotonic(), cpu(), [0]

    def turns(mine: list[Any], apart: float) -> None:
        due = time.monotonic()
        while time.monotonic() < began + options.seconds:
            for claim in mine:
                queue.append(claim, [("message", repr(time.time()))])
                wrote[0] += 1
                due += apart
                if apart:
                    time.sleep(max(0.0, due - time.monotonic()))

    hands = 4
    apart = hands / options.rate if options.rate else 0.0
    threads = [threading.Thread(target=turns, args=(claims[number::hands], apart)) for number in range(hands)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - began
    print(
        json.dumps(
            {"wrote": wrote[0], "per_second": round(wrote[0] / took), "writer_cpu_us": round(1e6 * (cpu() - used) / wrote[0])}
        )
    )
    for claim in claims:
        queue.finish(claim, [("message", "")])


if __name__ == "__main__":
    main()
