"""The server below a path of nginx: `location /chat/` and `X-Forwarded-Prefix`, as in docs/deployment.md."""

import json

import pytest
from openai import OpenAI
from playwright.sync_api import expect

from tests.chromium import chromium
from tests.deploy.nginx_server import Nginx, nginx_or_skip
from tests.live import Browser
from tests.web.page import TIMEOUT_MS, replies, send, wait_for_reply

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]


@pytest.fixture
def url(start, tmp_path):
    nginx_or_skip()
    server = start("gunicorn", TRUSTED_PROXY_HOPS="1", AUTH_MODE="anonymous", DATABASE_URL=f"sqlite:///{tmp_path}/chat.db")
    nginx = Nginx(tmp_path, server.port, below_path=True)
    yield nginx.url
    nginx.stop()
    assert "Traceback" not in server.log


@pytest.mark.slow
def test_the_page_works(url):
    with chromium() as browser:
        page = browser.new_page()
        page.set_default_timeout(TIMEOUT_MS)
        statuses: list[tuple[int, str]] = []
        page.on("response", lambda response: statuses.append((response.status, response.url)))
        page.goto(f"{url}/chat")  # nginx adds the slash.
        send(page, "below a path")
        wait_for_reply(page)
        page.wait_for_url("**/chat/#/c/*")
        page.reload()
        expect(replies(page)).to_have_text("below a path")
        page.get_by_role("link", name="Direct chat").click()
        send(page, "and directly")
        expect(replies(page)).to_have_text("and directly")
        page.get_by_role("button", name="Check the connection").click()
        expect(page.locator("#check")).to_contain_text("came as they were sent")

        assert [(cookie["name"], cookie["path"]) for cookie in page.context.cookies()] == [("chat_user", "/chat")]
        assert [response for response in statuses if response[0] >= 400] == []


def test_streams_tickets_and_protocols_work(url):
    client = Browser(url)
    with client.request("GET", "/chat/api/chat/active") as response:
        cookie = response.headers["Set-Cookie"].partition(";")[0]

    with client.request("POST", "/chat/api/chat/stream", {"message": "one two"}, Cookie=cookie) as stream:
        events = list(stream.events())
    location = stream.headers["Location"]
    ticket = client.request("POST", "/chat/api/ticket", {}, Cookie=cookie).json()["ticket"]
    with client.request("GET", f"{location}?ticket={ticket}", Last_Event_ID=events[-2]["id"]) as resumed:
        assert next(resumed.events()) == events[-1]
    with client.request("POST", f"{location}/stop", Cookie=cookie) as stopped:
        assert stopped.status == 202
    parts = [{"type": "text", "text": "three"}]
    body = {"id": "chat-1", "messages": [{"id": "m", "role": "user", "parts": parts}], "trigger": "submit-message"}
    with client.request("POST", "/chat/api/chat/stream?protocol=ai-sdk", body, Cookie=cookie) as stream:
        assert '"delta":"three"' in "".join(stream.frames()).replace(": ", ":")
    with client.request("GET", "/chat/openapi.json") as response:
        assert json.loads(response.read())["servers"][0]["url"] == "/chat"
    openai = OpenAI(base_url=f"{url}/chat/v1", api_key="none", default_headers={"Cookie": cookie}, max_retries=0)
    completion = openai.chat.completions.create(model="echo", messages=[{"role": "user", "content": "four"}])
    assert completion.choices[0].message.content == "four"
    assert location.startswith("/chat/api/chat/stream/")
