import http.client
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from bff.ops.loopback import Loopback

DEADLINE = 20.0


def hello(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello ", environ["PATH_INFO"].encode()]


class Factory:
    """Makes an app, and counts how often."""

    def __init__(self, app=hello) -> None:
        self.keys: list[str] = []
        self._app = app

    def __call__(self, key: str):
        self.keys.append(key)
        return self._app


def get(url: str, path: str = "/") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=DEADLINE)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_nothing_starts_until_the_url_is_asked_for():
    factory = Factory()
    threads = threading.active_count()

    neighbour = Loopback("quiet", factory)

    assert neighbour.key
    assert factory.keys == []
    assert threading.active_count() == threads


def test_it_is_served_on_a_loopback_port():
    neighbour = Loopback("neighbour", Factory())

    url = neighbour.url

    assert urlsplit(url).hostname == "127.0.0.1"
    assert get(url, "/there") == (200, b"hello /there")


def test_whoever_asks_at_the_same_time_gets_the_same_url():
    factory = Factory()
    neighbour, together = Loopback("neighbour", factory), threading.Barrier(20)

    def ask() -> str:
        together.wait(DEADLINE)
        return neighbour.url

    with ThreadPoolExecutor(20) as threads:
        urls = {asking.result(DEADLINE) for asking in [threads.submit(ask) for _ in range(20)]}

    assert urls == {neighbour.url}
    assert factory.keys == [neighbour.key]


def test_the_factory_is_given_the_key_that_callers_show():
    factory, other = Factory(), Factory()
    neighbour, another = Loopback("neighbour", factory), Loopback("another", other)

    assert neighbour.url != another.url

    assert factory.keys == [neighbour.key]
    assert neighbour.key != another.key
    assert len(neighbour.key) >= 32


def test_callers_do_not_wait_for_each_other():
    both = threading.Barrier(2)

    def together(environ, start_response):
        both.wait(DEADLINE)
        return hello(environ, start_response)

    url = Loopback("neighbour", Factory(together)).url

    with ThreadPoolExecutor(2) as threads:
        asking = [threads.submit(get, url) for _ in range(2)]
        assert [one.result(DEADLINE) for one in asking] == [(200, b"hello /")] * 2


def test_an_answer_comes_in_chunks_so_that_its_end_can_be_told_from_a_cut():
    def cut(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"hel"
        environ["werkzeug.socket"].shutdown(2)

    whole, broken = Loopback("whole", Factory()).url, Loopback("broken", Factory(cut)).url

    assert get(whole) == (200, b"hello /")
    with pytest.raises(http.client.IncompleteRead):
        get(broken)


def test_a_start_that_failed_is_tried_again():
    attempts = iter([OSError("not yet"), None])

    def factory(key: str):
        if problem := next(attempts):
            raise problem
        return hello

    neighbour = Loopback("late", factory)
    with pytest.raises(OSError, match="not yet"):
        neighbour.url  # noqa: B018 - asking is what starts it

    assert get(neighbour.url) == (200, b"hello /")


def test_what_is_asked_is_in_no_log_of_its_own(capfd):
    get(Loopback("neighbour", Factory()).url, "/secret")

    assert "secret" not in "".join(capfd.readouterr())
