"""Refusals of large uploads keep their status through a real nginx, which answers 502 if the connection is reset."""

import pytest

from tests.deploy.nginx_server import Nginx, nginx_or_skip
from tests.live import Browser

pytestmark = pytest.mark.live
MIB = 2**20
VOICE = {"message": "", "message_type": "audio", "audio_format": "ogg", "audio_base64": "QUJD" * 4 * MIB}


@pytest.fixture(scope="module")
def server(share, kind):
    nginx_or_skip()
    return share(kind, TRUSTED_PROXY_HOPS="1", MAX_BODY_BYTES=str(20 * MIB), MESSAGES_PER_MINUTE="1")


@pytest.fixture(scope="module", params=["", "proxy_request_buffering off;"], ids=["as deployed", "unbuffered"])
def proxy(request, server, tmp_path_factory):
    nginx = Nginx(tmp_path_factory.mktemp("nginx"), server.port, more=request.param)
    yield nginx
    nginx.stop()


@pytest.fixture
def browser(proxy, user):
    return Browser(proxy.url, user)


def answer(browser, path: str, message: dict, **headers: str) -> tuple[int, str]:
    with browser.request("POST", path, message, **headers) as reply:
        return reply.status, reply.json()["code"]


@pytest.mark.parametrize("path", ["/api/chat/stream", "/api/chat"])
def test_a_large_upload_of_an_unknown_user_is_a_401(browser, path):
    assert answer(browser, path, VOICE, X_Forwarded_User=".") == (401, "unauthorized")


@pytest.mark.parametrize("path", ["/api/chat/stream", "/api/chat"])
def test_an_upload_over_the_limit_is_a_413(browser, path):
    too_large = VOICE | {"audio_base64": "QUJD" * 6 * MIB}

    assert answer(browser, path, too_large) == (413, "too_large")


@pytest.mark.parametrize("path", ["/api/chat/stream", "/api/chat"])
def test_a_large_upload_over_the_rate_is_a_429(browser, path):
    with browser.request("POST", "/api/chat", {"message": "hello"}) as first:
        assert first.status == 200

    assert answer(browser, path, VOICE) == (429, "too_many_requests")
