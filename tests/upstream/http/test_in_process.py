"""A neighbour in this process, called through `requests` as if it stood elsewhere."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path
from time import monotonic

import pytest
from flask import Flask, Response, request

from bff.errors import ClientDisconnected, Draining, ServerRestarting, UpstreamTimeout, UpstreamUnavailable
from bff.http import waiting
from bff.http.responses import EventStream, StreamOptions
from bff.http.sse import Event, comment
from bff.http.streams import StreamLimiter
from bff.upstream.http import ByteStream, EventSource, InProcessService, new_session, read_json, send
from tests.live import DEADLINE


class Talk:
    """A neighbour whose `/stream` says what `say` yields, and which counts the keys it was built with."""

    def __init__(self, say=lambda waiter: [Event("", "a")], heartbeat_seconds: float = 60.0) -> None:
        self.keys: list[str] = []
        self.streams = StreamLimiter(100, 100)
        self.closed = threading.Event()
        self._say = say
        self._how = StreamOptions(comment("beat"), heartbeat_seconds)
        self.neighbour = InProcessService("talk", self._app)

    def _app(self, key: str) -> Flask:
        self.keys.append(key)
        app = Flask(__name__)
        app.add_url_rule("/stream", view_func=self._stream)
        app.add_url_rule("/wait", view_func=self._wait)
        app.add_url_rule("/<path:path>", view_func=self._mirror, methods=["POST", "DELETE"])
        return app

    def _stream(self) -> Response:
        slot = self.streams.acquire("ann")
        return EventStream(self._say, self._how, environ=request.environ, slot=slot, close=self.closed.set)

    def _wait(self) -> str:
        with closing(waiting.new_waiter(waiting.client(request.environ))) as waiter:
            while True:
                waiter.wait()

    def _mirror(self, path: str) -> tuple[dict[str, str], int, dict[str, str]]:
        body, key = request.get_data(as_text=True), request.headers["X-API-Key"]
        return {"path": path, "query": request.args["q"], "key": key, "body": body}, 202, {"X-Method": request.method}

    def ask(self, path: str = "/stream", method: str = "GET", seconds: float = DEADLINE, **options):
        deadline = monotonic() + seconds
        session, headers = new_session(to=self.neighbour), {"X-API-Key": self.neighbour.key}
        return send(session, method, self.neighbour.url + path, headers=headers, connect=1.0, deadline=deadline, **options)

    def open(self, silence: float = DEADLINE) -> EventSource:
        return EventSource(self.ask(), silence)


def data(events) -> list[str]:
    return [event.data for event in events if event is not None]


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def forever(waiter):
    """A word, and silence."""
    yield Event("", "first")
    while True:
        yield None
        waiter.wait()


def test_a_request_and_its_answer_are_what_they_are_over_a_socket():
    talk = Talk()

    answer = talk.ask("/a%2Fb/%C3%A9", "POST", params={"q": "1&2 é"}, body={"text": "日本"})

    assert (answer.status_code, answer.reason, answer.headers["x-method"]) == (202, "ACCEPTED", "POST")
    assert answer.headers["Content-Type"] == "application/json"
    assert read_json(answer, monotonic() + 5) == {
        "path": "a/b/é",
        "query": "1&2 é",
        "key": talk.neighbour.key,
        "body": '{"text":"\\u65e5\\u672c"}',
    }


@pytest.mark.parametrize("value", ["é".encode(), "é-日本".encode()])
def test_bytes_of_a_header_arrive_as_they_were_sent(value):
    heard = []
    talk = Talk()
    talk.neighbour.app.before_request(lambda: heard.append(request.environ["HTTP_X_BYTES"]))
    headers: dict[str, str | bytes] = {"X-API-Key": "", "X-Bytes": value}

    send(new_session(to=talk.neighbour), "GET", talk.neighbour.url, headers=headers, connect=1.0, deadline=monotonic() + 5)

    assert [text.encode("latin-1") for text in heard] == [value]


def test_a_header_that_could_not_go_over_a_socket_is_refused_here_too():
    talk = Talk()

    with pytest.raises(UpstreamUnavailable):
        send(
            new_session(to=talk.neighbour),
            "GET",
            talk.neighbour.url,
            headers={"X": "日本"},
            connect=1.0,
            deadline=monotonic() + 5,
        )


def test_nothing_is_built_until_it_is_asked_and_then_once():
    talk = Talk()
    assert talk.keys == []

    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(talk.ask, "/x", "DELETE", params={"q": ""}) for _ in range(8)]
        assert {asking.result(DEADLINE).status_code for asking in asked} == {202}

    assert talk.keys == [talk.neighbour.key]
    assert len(talk.neighbour.key) >= 32
    assert talk.neighbour.key != Talk().neighbour.key


def test_a_build_that_failed_is_tried_again():
    attempts = iter([OSError("not yet"), None])

    def factory(key: str) -> Flask:
        if problem := next(attempts):
            raise problem
        return Flask(__name__)

    neighbour = InProcessService("late", factory)

    def ask() -> int:
        session = new_session(to=neighbour)
        return send(session, "GET", neighbour.url, headers={}, connect=1.0, deadline=monotonic() + 5).status_code

    with pytest.raises(UpstreamUnavailable):
        ask()

    assert ask() == 404


def test_a_stream_is_read_to_its_end_and_everything_is_closed(waiter):
    talk = Talk(lambda _: [Event("word", "a", "1"), Event("", "b\nc"), None, Event("", "d")])

    with closing(talk.open()) as source:
        events = [event for event in source.events(waiter) if event is not None]

    assert events == [Event("word", "a", "1"), Event("message", "b\nc", "1"), Event("message", "d", "1")]
    assert talk.closed.is_set()
    assert len(talk.streams) == 0


def test_a_stream_takes_no_descriptor(waiter):
    talk = Talk(forever)
    sources = [talk.open()]
    before = descriptors()

    sources += [talk.open() for _ in range(50)]
    said = [data(islice(source.events(waiter), 2)) for source in sources]

    assert said == [["first"]] * 51
    assert descriptors() < before + 50, "some, as other tests' servers may still come and go"
    for source in sources:
        source.close()


def test_no_wait_hides_what_the_reader_has_to_say(waiter):
    with closing(Talk(forever).open()) as source:
        events = source.events(waiter)
        assert data(islice(events, 2)) == ["first"]

        began = monotonic()
        waiter.wake_at = began + 0.2
        while monotonic() < waiter.wake_at:
            assert next(events) is None

    assert monotonic() - began < DEADLINE / 2


def test_a_word_from_elsewhere_wakes_the_neighbours_stream(waiter):
    places = []

    def say(waiter):
        places.append(waiter)
        yield Event("", "first")
        yield None
        waiter.wait()
        yield Event("", "second")

    with closing(Talk(say).open()) as source:
        events = source.events(waiter)
        assert data(islice(events, 2)) == ["first"]
        threading.Timer(0.05, places[0].wake).start()

        assert data(events) == ["second"]


def test_a_word_that_comes_while_the_reader_is_busy_is_not_missed(waiter):
    places = []

    def say(waiter):
        places.append(waiter)
        yield Event("", "first")
        yield None
        waiter.wait()
        yield Event("", "second")

    with closing(Talk(say).open()) as source:
        events = source.events(waiter)
        assert data(islice(events, 2)) == ["first"]
        places[0].wake()

        assert data(events) == ["second"]


def test_the_neighbours_heartbeat_is_a_sign_of_life(waiter):
    with closing(Talk(forever, heartbeat_seconds=0.05).open()) as source:
        chunks = [chunk for chunk in islice(source.chunks(waiter), 30) if chunk]

    assert b": beat\n\n" in chunks


def test_silence_is_not_waited_out(waiter):
    with closing(Talk(forever).open(silence=0.2)) as source, pytest.raises(UpstreamTimeout):
        list(source.events(waiter))


@pytest.mark.parametrize(
    "reason", [ClientDisconnected(), Draining(), UpstreamTimeout()], ids=lambda reason: type(reason).__name__
)
def test_what_ends_the_reader_is_raised_there_and_closes_the_neighbours_stream_without_a_word(waiter, reason, caplog):
    talk = Talk(forever)
    with closing(talk.open()) as source:
        threading.Timer(0.05, waiter.cancel, [reason]).start()

        with pytest.raises(type(reason)):
            list(source.events(waiter))

    assert talk.closed.is_set()
    assert caplog.records == []


def test_a_stream_that_the_neighbour_ends_just_ends(waiter):
    talk = Talk(forever)
    with closing(talk.open()) as source:
        events = source.events(waiter)
        assert data(islice(events, 2)) == ["first"]

        threading.Thread(target=talk.streams.drain, args=[0.1]).start()
        list(events)

    assert talk.closed.is_set()


def test_a_neighbour_that_hangs_up_is_a_cut(waiter):
    def say(waiter):
        yield Event("", "first")
        yield None
        waiter.abort()

    with closing(Talk(say).open()) as source:
        events = source.events(waiter)
        assert data(islice(events, 2)) == ["first"]
        with pytest.raises(UpstreamUnavailable):
            list(events)


@pytest.mark.parametrize("begun", [True, False])
def test_a_stream_that_is_let_go_of_is_closed(waiter, begun):
    talk = Talk(forever)
    source = talk.open()
    if begun:
        next(source.events(waiter))

    source.close()

    assert talk.closed.is_set()
    assert len(talk.streams) == 0


def test_a_first_event_can_be_read_at_one_place_and_the_rest_at_another(waiter):
    with (
        closing(waiting.new_waiter()) as first,
        closing(Talk(lambda _: [Event("", "a"), None, Event("", "b")]).open()) as source,
    ):
        assert next(event for event in source.events(first) if event is not None).data == "a"

        assert data(source.events(waiter)) == ["b"]


def test_an_answer_that_does_not_come_is_not_waited_for():
    with pytest.raises(UpstreamTimeout):
        Talk().ask("/wait", seconds=0.2)


@pytest.mark.parametrize(
    "reason", [ClientDisconnected(), Draining(), ServerRestarting()], ids=lambda reason: type(reason).__name__
)
def test_whoever_waits_for_an_answer_can_be_sent_away(waiter, reason):
    threading.Timer(0.05, waiter.cancel, [reason]).start()

    with pytest.raises(type(reason)):
        Talk().ask("/wait", waiter=waiter)


def test_what_the_asker_has_to_say_meanwhile_waits_until_the_answer_is_there(waiter):
    waiter.wake_at = monotonic() - 1

    with pytest.raises(UpstreamTimeout):
        Talk().ask("/wait", seconds=0.2, waiter=waiter)

    assert waiter.wake_at < monotonic()


def test_what_a_stream_holds_is_let_go_of_when_it_is_closed(waiter):
    held = threading.Event()

    def say(waiter):
        held.set()
        try:
            yield from forever(waiter)
        finally:
            held.clear()

    source = Talk(say).open()
    events = source.events(waiter)
    assert data(islice(events, 2)) == ["first"]
    assert held.is_set()

    source.close()

    assert not held.is_set()


def test_bytes_of_known_length_are_read_like_any_others(waiter):
    sound = bytes(range(256)) * 1024
    neighbour = InProcessService(
        "sound", lambda _: lambda environ, start: Response(sound, content_type="audio/wav")(environ, start)
    )
    session = new_session(to=neighbour)

    response = send(session, "GET", neighbour.url, headers={}, connect=1.0, deadline=monotonic() + DEADLINE, waiter=waiter)
    with closing(ByteStream(response, DEADLINE)) as source:
        assert (source.size, source.header("Content-Type")) == (len(sound), "audio/wav")
        assert b"".join(source.chunks(waiter)) == sound


def test_a_stream_that_never_waits_lets_others_have_their_turn(waiter):
    def say(_):
        while not spoken.is_set():
            yield Event("", "a")
            yield None

    spoken = threading.Event()
    with closing(Talk(say).open()) as source:
        threading.Timer(0.01, spoken.set).start()

        assert data(source.events(waiter))
