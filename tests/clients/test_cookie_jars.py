"""Clients that keep cookies, ours and a load balancer's, are served twice with one client object."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator

import httpx
import openai
import pytest
import requests

from tests.clients.conftest import HERE, node_or_skip
from tests.clients.cutting import StickyBalancer
from tests.live import ROOT, Server
from tests.missing import missing

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

FRAMEWORKS = ROOT / ".venv" / "frameworks"
COOKIES = {"chat_user", "AWSALB", "AWSALBCORS", "__cf_bm"}
TWICE = ["first", "second"]


@pytest.fixture(scope="module")
def anonymous_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("cookies") / "server.log"
    server = Server("gunicorn", log, AUTH_MODE="anonymous").wait_until_ready()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def balancer(anonymous_server: Server) -> Iterator[str]:
    with StickyBalancer(anonymous_server.port) as balancer:
        yield balancer.url


def body(content: str) -> dict[str, object]:
    return {"model": "echo", "messages": [{"role": "user", "content": content}]}


@pytest.mark.parametrize("new_client", [requests.Session, httpx.Client])
def test_a_session_sends_two_messages(balancer, new_client: Callable[[], requests.Session | httpx.Client]):
    with new_client() as client:
        for content in TWICE:
            response = client.post(f"{balancer}/v1/chat/completions", json=body(content))
            assert (response.status_code, response.json()["choices"][0]["message"]["content"]) == (200, content)
            response = client.post(f"{balancer}/api/chat/stream", json={"message": content})
            assert '"type":"complete"' in response.text
        history_length = client.get(f"{balancer}/api/chat/history").json()["total_count"]

        assert set(client.cookies.keys()) == COOKIES
    assert history_length >= len(TWICE), "both messages are of one user"


def test_openai_is_used_twice_with_a_cookie_jar(balancer):
    with (
        httpx.Client() as http,
        openai.OpenAI(base_url=f"{balancer}/v1", api_key="x", http_client=http, max_retries=0) as client,
    ):
        replies = [client.chat.completions.create(**body(content)).choices[0].message.content for content in TWICE]
        streams = [
            "".join(chunk.choices[0].delta.content or "" for chunk in client.chat.completions.create(**body(text), stream=True))
            for text in TWICE
        ]

        assert set(http.cookies) == COOKIES
    assert replies == streams == TWICE


def test_openai_is_used_twice_in_node(balancer):
    environment = {"PATH": os.environ["PATH"], "SERVER_URL": balancer}
    command = [node_or_skip(), "cookie_jar.mjs"]
    done = subprocess.run(command, cwd=HERE, env=environment, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["replies"], set(result["cookies"])) == (TWICE, COOKIES)


LANGCHAIN = """
import json, os
from langchain_openai import ChatOpenAI
model = ChatOpenAI(model="echo", base_url=os.environ["SERVER_URL"] + "/v1", api_key="a-key", max_retries=0)
whole = [model.invoke(text).content for text in ("first", "second")]
streamed = ["".join(chunk.content for chunk in model.stream(text)) for text in ("first", "second")]
print(json.dumps([whole, streamed]))
"""
LITELLM = """
import json, os
import litellm, openai
client = openai.OpenAI(base_url=os.environ["SERVER_URL"] + "/v1", api_key="a-key", max_retries=0)
def ask(text, **more):
    return litellm.completion("openai/echo", [{"role": "user", "content": text}], client=client, **more)
whole = [ask(text).choices[0].message.content for text in ("first", "second")]
streamed = ["".join(chunk.choices[0].delta.content or "" for chunk in ask(text, stream=True)) for text in ("first", "second")]
print(json.dumps([whole, streamed]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("script", [pytest.param(LANGCHAIN, id="LangChain"), pytest.param(LITELLM, id="LiteLLM")])
def test_a_framework_uses_one_client_twice(balancer, tmp_path, script):
    if not (FRAMEWORKS / "installed").exists():
        missing("LangChain or LiteLLM")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "SERVER_URL": balancer,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    done = subprocess.run(
        [FRAMEWORKS / "bin" / "python", "-c", script], env=environment, capture_output=True, text=True, timeout=100
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [TWICE, TWICE]
