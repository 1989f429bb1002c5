"""The page where the line breaks and the server is deployed anew, and other clients of the same stream."""

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.live import BROKER_KEY, Server
from tests.web.fault_proxy import Fault, FaultProxy
from tests.web.page import WORDS, answers, direct_chat, kept, log, questions, say, settings, wait_until_answered

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

READ_ALL = """async (read) => {
    const response = await fetch("/api/chat/stream", {
        method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ message: "one two three" }),
    });
    const id = response.headers.get("X-Message-ID");
    const text = await response.text();
    const events = {
        lines: () => text.split("\\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)),
        blocks: () => text.split("\\n\\n").filter((block) => block.startsWith("data: "))
            .map((block) => block.slice(6).split("\\n")[0]),
        source: () => new Promise((done) => {
            const source = new EventSource(`/api/chat/stream/${id}`);
            const said = [];
            source.onmessage = ({ data }) => {
                said.push(data);
                if (JSON.parse(data).type === "complete") done(said), source.close();
            };
        }),
    };
    return (await events[read]()).map((data) => JSON.parse(data));
}"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("breaks")


@pytest.fixture(scope="module")
def broker(place):
    broker = Server("broker", place / "broker.log", BROKER_API_KEY=BROKER_KEY)
    yield broker.wait_until_ready()
    broker.stop()


@pytest.fixture(scope="module")
def deploy(place, broker):
    """`deploy()`: the web process, for the first time or anew, at the same address."""
    servers: list[Server] = []

    def begin() -> Server:
        port = None
        if servers:
            servers[-1].stop(signal.SIGTERM)
            port = servers[-1].port
        options = settings(place) | {"BROKER_BASE_URL": broker.url, "BROKER_API_KEY": BROKER_KEY, "DRAIN_SECONDS": "3"}
        servers.append(Server("gunicorn", place / "web.log", port, **options))
        return servers[-1].wait_until_ready()

    yield begin
    servers[-1].stop()


@pytest.fixture(scope="module")
def server(deploy):
    return deploy()


@pytest.mark.parametrize("read", ["lines", "blocks", "source"])
def test_clients_as_they_are_known_read_the_same(visit, read):
    events = visit().evaluate(READ_ALL, read)

    assert "".join(event["text"] for event in events if event["type"] == "progress") == "one two three"
    assert [event["type"] for event in events][-1] == "complete"


@pytest.fixture
def line(server):
    with FaultProxy(server.port, lambda: Fault("none")) as line:
        yield line


@contextlib.contextmanager
def offline(page: Page, line: FaultProxy) -> Iterator[None]:
    """The browser's own idea of it leaves streams that run as they are."""
    page.context.set_offline(True)
    line.cut()
    yield
    page.context.set_offline(False)


def test_an_answer_goes_on_where_it_was_once_the_browser_is_online_again(visit, line):
    page = direct_chat(visit(line.url))
    say(page, f"/slow 4 {WORDS}")
    expect(answers(page)).to_contain_text("word-3")

    with offline(page, line):
        expect(log(page).locator(".note")).to_contain_text("The connection was lost.")

    expect(answers(page)).to_have_text(WORDS)
    expect(log(page).locator(".note")).to_have_text("Continued after a break in the connection.")


def test_a_reply_goes_on_where_it_was_once_the_browser_is_online_again(visit, line):
    page = visit(line.url)
    text = " ".join([WORDS] * 5)
    say(page, text)
    expect(answers(page)).to_contain_text("word-3")

    with offline(page, line):
        expect(log(page).locator(".note")).to_contain_text("The connection was lost.")

    expect(answers(page)).to_have_text(text)
    expect(log(page).locator(".note")).to_have_text("Continued after a break in the connection.")
    wait_until_answered(page)
    assert kept(page) == ["user", "assistant"]


def test_both_chats_survive_a_deploy(visit, server, deploy):
    page = direct_chat(visit())
    other = page.context.new_page()
    other.goto(server.url)
    text = " ".join([WORDS] * 5)
    say(page, f"/slow 9 {WORDS}")
    say(other, text)
    for tab in (page, other):
        expect(answers(tab)).to_contain_text("word-3")

    deploy()

    expect(answers(page)).to_have_text(WORDS)
    expect(questions(page)).to_have_count(1)
    expect(log(page).locator(".note")).to_have_text("Continued after a break in the connection.")
    expect(answers(other)).to_have_text(text)
    wait_until_answered(other)
    assert kept(other) == ["user", "assistant"]


@pytest.mark.parametrize("way", ["told to stop", "crashed"])
def test_with_redis_a_reply_goes_on_where_it_was_through_a_restart(visit, start, tmp_path, clean_redis, way):
    shared = settings(tmp_path) | {"REDIS_URL": clean_redis.url, "DRAIN_SECONDS": "2"}
    old = start(**shared, RUN_WORKER="0")
    start("worker", **shared)
    page = visit(old.url)
    other = page.context.new_page()
    text = " ".join([WORDS] * 8)
    say(page, text)
    expect(answers(page)).to_contain_text("word-3")
    other.goto(page.url)
    expect(answers(other)).to_contain_text("word-3")

    old.crash() if way == "crashed" else old.stop(signal.SIGTERM)
    start(port=old.port, **shared, RUN_WORKER="0")

    for tab in (page, other):
        expect(answers(tab)).to_have_text(text)
        wait_until_answered(tab)
    expect(log(page).locator(".note")).to_have_text("Continued after a break in the connection.")
    assert kept(page) == ["user", "assistant"]


def test_without_redis_a_reply_begins_again_after_a_crash(visit, start, tmp_path):
    old = start(**settings(tmp_path))
    page = visit(old.url)
    text = " ".join([WORDS] * 3)
    say(page, text)
    expect(answers(page)).to_contain_text("word-3")

    old.crash()
    start(port=old.port, **settings(tmp_path))

    expect(answers(page)).to_have_text(text)
    wait_until_answered(page)
    expect(log(page).locator(".note")).to_have_text("The reply was interrupted, and begins again.")
    assert kept(page) == ["user", "assistant"]
