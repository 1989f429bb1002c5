"""Agents of the application, given to `create_app` or declared as entry points of an installed package."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bff import create_app
from bff.config.environment import load_settings
from bff.errors import SettingsError
from tests.live import ADA, BASE_ENVIRONMENT, DEADLINE, Browser, eventually, status_of, text_of
from tests.wire_server import HANG, LAST_CHUNK, WireServer, chunk, reply, stream_head

AGENT = (
    '"""An agent that reads a model with the OpenAI library, which knows nothing of waiters."""'
    + """

import os

import openai


class Library:
    id = "library"
    name = "Library"
    description = "Uses a client library."
    repeatable = False

    def stream(self, history, identity):
        client = openai.OpenAI(base_url=os.environ["MODEL_URL"], api_key="key", max_retries=0)
        messages = [{"role": message.role, "content": message.content} for message in history]
        with client.chat.completions.create(model="m", messages=messages, stream=True) as pieces:
            for piece in pieces:
                yield piece.choices[0].delta.content or ""
"""
)


class Shout:
    id = "shout"
    name = "Shout"
    description = "Repeats the last message loudly."
    repeatable = True

    def stream(self, history, identity, waiter) -> Iterator[str]:
        yield history[-1].content.upper()


class Whisper(Shout):
    id = "whisper"

    def stream(self, history, identity, waiter) -> Iterator[str]:
        yield history[-1].content.lower()


def install(folder: Path, value: str, code: str = AGENT) -> None:
    """What an installed package with one entry point has in `folder`."""
    (folder / "my_agents.py").write_text(code)
    metadata = folder / "my_agents-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my-agents\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(f"[chat_bff.agents]\nmine = {value}\n")


def app_with(tmp_path: Path, *agents: Shout, **settings: str):
    environment = BASE_ENVIRONMENT | {"DATABASE_URL": f"sqlite:///{tmp_path}/chat.db"} | settings
    return create_app(load_settings(environment), agents=agents).test_client()


def reply_to(client, message: str) -> str:
    return client.post("/api/chat", json={"message": message}, headers=ADA).json["responses"][0]


def test_the_first_agent_of_the_application_answers_direct_chat(tmp_path):
    client = app_with(tmp_path, Shout(), Whisper())

    assert reply_to(client, "Hello") == "HELLO"
    listed = [agent["id"] for agent in client.get("/api/agents", headers=ADA).json["agents"]]
    assert listed == ["echo", "demo", "shout", "whisper"]


def test_default_agent_takes_precedence(tmp_path):
    assert reply_to(app_with(tmp_path, Shout(), Whisper(), DEFAULT_AGENT="whisper"), "Hello") == "hello"
    assert reply_to(app_with(tmp_path, Shout(), DEFAULT_AGENT="echo"), "Hello") == "Hello"


def test_conversations_default_to_echo(tmp_path):
    client = app_with(tmp_path, Shout())
    conversation = client.post("/api/conversations", json={}, headers=ADA).json["id"]
    client.post(f"/api/conversations/{conversation}/messages", json={"content": "Hello"}, headers=ADA)

    with client.get(f"/api/conversations/{conversation}/stream", headers=ADA) as stream:
        tokens = [line for line in stream.get_data(as_text=True).splitlines() if "token" in line]

    assert tokens[1:] == ['data: {"token": "Hello"}']


def test_two_agents_with_one_id_are_refused(tmp_path):
    with pytest.raises(SettingsError, match="There are two agents with the id 'shout'"):
        app_with(tmp_path, Shout(), Shout())


@pytest.mark.parametrize("value", ["my_agents:Missing", "no_such_module:Library", "my_agents:broken"])
def test_an_entry_point_that_cannot_be_loaded_is_named(tmp_path, monkeypatch, value):
    install(tmp_path, value, "def broken():\n    raise ValueError('no key')\n")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(SettingsError, match=f"The agent {value} cannot be loaded: "):
        app_with(tmp_path)
    sys.modules.pop("my_agents", None)


def word(text: str) -> bytes:
    return chunk(b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % text.encode())


@pytest.mark.live
def test_a_client_librarys_stream_works_in_an_installed_agent(start, kind, tmp_path):
    packages = tmp_path / "packages"
    packages.mkdir()
    install(packages, "my_agents:Library")
    whole = [stream_head(), word("one "), word("two"), chunk(b"data: [DONE]\n\n"), LAST_CHUNK]
    with WireServer(whole, [stream_head(), word("three "), HANG], queue=None) as model:
        server = start(kind, PYTHONPATH=os.fspath(packages), MODEL_URL=model.url, DATABASE_URL=f"sqlite:///{tmp_path}/chat.db")
        browser = Browser(server)
        with browser.say("hello") as first:
            assert text_of(list(first.events())) == "one two"
        with browser.say("hello again") as second:
            events = second.events()
            assert eventually(lambda: next(events)["type"] == "progress", DEADLINE)

            assert status_of(browser.stop(second.message_id)) == 202

            assert list(events)[-1]["type"] == "stopped", "although the library still waits for its server"


@pytest.mark.live
def test_an_error_of_a_client_library_ends_the_reply(start, kind, tmp_path):
    packages = tmp_path / "packages"
    packages.mkdir()
    install(packages, "my_agents:Library")
    with WireServer([reply(b'{"error":{"message":"secret"}}', status="401 Unauthorized")], queue=None) as model:
        server = start(kind, PYTHONPATH=os.fspath(packages), MODEL_URL=model.url, DATABASE_URL=f"sqlite:///{tmp_path}/chat.db")
        with Browser(server).say("hello") as stream:
            last = list(stream.events())[-1]

    assert last["type"] == "error"
    assert "secret" not in last["error"]
