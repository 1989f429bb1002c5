"""The page through lost connections, deploys and crashes; other ways to read the same stream."""

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.live import BROKER_KEY, Server
from tests.web.fault_proxy import Fault, FaultProxy
from tests.web.page import WORDS, direct_chat, page_settings, questions, replies, send, stored_roles, transcript, wait_for_reply

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

READ_EVENTS = """async (read) => {
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
            const received = [];
            source.onmessage = ({ data }) => {
                received.push(data);
                if (JSON.parse(data).type === "complete") done(received), source.close();
            };
        }),
    };
    return (await events[read]()).map((data) => JSON.parse(data));
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("breaks")


@pytest.fixture(scope="module")
def broker(folder):
    broker = Server("broker", folder / "broker.log", BROKER_API_KEY=BROKER_KEY)
    yield broker.wait_until_ready()
    broker.stop()


@pytest.fixture(scope="module")
def deploy(folder, broker):
    """`deploy()` starts the web process, or replaces it on the same port."""
    servers: list[Server] = []

    def replace() -> Server:
        port = None
        if servers:
            servers[-1].stop(signal.SIGTERM)
            port = servers[-1].port
        options = page_settings(folder) | {"BROKER_BASE_URL": broker.url, "BROKER_API_KEY": BROKER_KEY, "DRAIN_SECONDS": "3"}
        servers.append(Server("gunicorn", folder / "web.log", port, **options))
        return servers[-1].wait_until_ready()

    yield replace
    servers[-1].stop()


@pytest.fixture(scope="module")
def server(deploy):
    return deploy()


@pytest.mark.parametrize("read", ["lines", "blocks", "source"])
def test_common_ways_to_read_a_stream_get_the_same_events(visit, read):
    events = visit().evaluate(READ_EVENTS, read)

    assert "".join(event["text"] for event in events if event["type"] == "progress") == "one two three"
    assert [event["type"] for event in events][-1] == "complete"


@pytest.fixture
def proxy(server):
    with FaultProxy(server.port, lambda: Fault("none")) as proxy:
        yield proxy


@contextlib.contextmanager
def offline(page: Page, proxy: FaultProxy) -> Iterator[None]:
    """Also closes open connections: the browser's offline mode does not affect running streams."""
    page.context.set_offline(True)
    proxy.cut()
    yield
    page.context.set_offline(False)


@pytest.mark.slow
def test_a_direct_reply_resumes_when_the_browser_is_online_again(visit, proxy):
    page = direct_chat(visit(proxy.url))
    send(page, f"/slow 4 {WORDS}")
    expect(replies(page)).to_contain_text("word-3")

    with offline(page, proxy):
        expect(transcript(page).locator(".note")).to_contain_text("The connection was lost.")

    expect(replies(page)).to_have_text(WORDS)
    expect(transcript(page).locator(".note")).to_have_text("Continued after a break in the connection.")


@pytest.mark.slow
def test_a_conversations_reply_resumes_when_the_browser_is_online_again(visit, proxy):
    page = visit(proxy.url)
    text = " ".join([WORDS] * 5)
    send(page, text)
    expect(replies(page)).to_contain_text("word-3")

    with offline(page, proxy):
        expect(transcript(page).locator(".note")).to_contain_text("The connection was lost.")

    expect(replies(page)).to_have_text(text)
    expect(transcript(page).locator(".note")).to_have_text("Continued after a break in the connection.")
    wait_for_reply(page)
    assert stored_roles(page) == ["user", "assistant"]


@pytest.mark.slow
def test_both_chats_survive_a_deploy(visit, server, deploy):
    page = direct_chat(visit())
    other = page.context.new_page()
    other.goto(server.url)
    text = " ".join([WORDS] * 5)
    send(page, f"/slow 9 {WORDS}")
    send(other, text)
    for tab in (page, other):
        expect(replies(tab)).to_contain_text("word-3")

    deploy()

    expect(replies(page)).to_have_text(WORDS)
    expect(questions(page)).to_have_count(1)
    expect(transcript(page).locator(".note")).to_have_text("Continued after a break in the connection.")
    expect(replies(other)).to_have_text(text)
    wait_for_reply(other)
    assert stored_roles(other) == ["user", "assistant"]


@pytest.mark.slow
@pytest.mark.parametrize("restart", ["stopped", "crashed"])
def test_with_redis_a_reply_resumes_after_a_restart(visit, start, tmp_path, clean_redis, restart):
    shared = page_settings(tmp_path) | {"REDIS_URL": clean_redis.url, "DRAIN_SECONDS": "2"}
    old = start(**shared, RUN_WORKER="0")
    start("worker", **shared)
    page = visit(old.url)
    other = page.context.new_page()
    text = " ".join([WORDS] * 8)
    send(page, text)
    expect(replies(page)).to_contain_text("word-3")
    other.goto(page.url)
    expect(replies(other)).to_contain_text("word-3")

    old.crash() if restart == "crashed" else old.stop(signal.SIGTERM)
    start(port=old.port, **shared, RUN_WORKER="0")

    for tab in (page, other):
        expect(replies(tab)).to_have_text(text)
        wait_for_reply(tab)
    expect(transcript(page).locator(".note")).to_have_text("Continued after a break in the connection.")
    assert stored_roles(page) == ["user", "assistant"]


@pytest.mark.slow
def test_without_redis_a_reply_restarts_after_a_crash(visit, start, tmp_path):
    old = start(**page_settings(tmp_path))
    page = visit(old.url)
    text = " ".join([WORDS] * 3)
    send(page, text)
    expect(replies(page)).to_contain_text("word-3")

    old.crash()
    start(port=old.port, **page_settings(tmp_path))

    expect(replies(page)).to_have_text(text)
    wait_for_reply(page)
    expect(transcript(page).locator(".note")).to_have_text("The reply was interrupted, and begins again.")
    assert stored_roles(page) == ["user", "assistant"]
