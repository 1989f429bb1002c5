"""Metrics after a drain and after a crash of processes."""

import contextlib
import http.client
import os
import signal

import pytest

from tests.live import Browser, Server, eventually, in_parallel
from tests.ops.numbers import numbers

pytestmark = [pytest.mark.live, pytest.mark.timeout(90)]


def metrics(server: Server) -> dict[str, float]:
    """The metrics of all processes, from any of them; one that is ending may close the connection."""

    def read() -> dict[str, float]:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return numbers(Browser(server).request("GET", "/metrics").read().decode())
        return {}

    return eventually(read, 20)


@pytest.mark.slow
def test_metrics_of_drained_processes_are_kept(start, clean_redis):
    web = start("gunicorn", REDIS_URL=clean_redis.url, WEB_CONCURRENCY="2", DRAIN_SECONDS="4")
    workers = eventually(lambda: len(web.children) == 2 and web.children, 15)
    streams = in_parallel(12, lambda number: Browser(web, f"user-{number}").say("/silence 3600", X_Chat_Resume="1"))
    assert eventually(lambda: metrics(web)["chat_streams_open{kind=chat}"] == 12, 15)

    for pid in workers:
        os.kill(pid, signal.SIGTERM)

    assert eventually(lambda: metrics(web).get("chat_streams_ended_total{ended=drained,kind=chat}") == 12, 30), metrics(web)
    assert metrics(web)["chat_streams_open{kind=chat}"] == 0
    assert metrics(web)["chat_streams_started_total{how=said,kind=chat}"] == 12
    for stream in streams:
        stream.close()


def test_open_streams_of_a_killed_process_are_not_counted(start, clean_redis):
    web = start("gunicorn", REDIS_URL=clean_redis.url, WEB_CONCURRENCY="2")
    workers = eventually(lambda: len(web.children) == 2 and web.children, 15)
    streams = in_parallel(6, lambda number: Browser(web, f"user-{number}").say("/silence 3600"))
    assert eventually(lambda: metrics(web)["chat_streams_open{kind=chat}"] == 6, 15)

    for pid in workers:
        os.kill(pid, signal.SIGKILL)

    assert eventually(lambda: metrics(web).get("chat_streams_open{kind=chat}") == 0, 30)
    assert metrics(web)["chat_streams_started_total{how=said,kind=chat}"] == 6
    for stream in streams:
        stream.close()
