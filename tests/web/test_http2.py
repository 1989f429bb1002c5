"""deploy/nginx.conf speaks HTTP/2: there a browser's event streams do not use up its connections."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from playwright.sync_api import expect

from tests.deploy.nginx_server import Certificate, Nginx
from tests.web.page import page_settings

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

OPEN_STREAMS = """async (count) => {
    const headers = { "Content-Type": "application/json" };
    const body = JSON.stringify({ message: "/slow 600 one two" });
    const open = () => fetch("/api/chat/stream", { method: "POST", headers, body });
    const responses = await Promise.all(Array.from({ length: count }, open));
    const { messages } = await (await fetch("/api/chat/active")).json();
    return [responses.map(({ status }) => status), messages.length];
}"""
PROTOCOL = "performance.getEntriesByType('navigation')[0].nextHopProtocol"


@pytest.fixture
def proxy(start, tmp_path: Path) -> Iterator[Nginx]:
    server = start(**page_settings(tmp_path), TRUSTED_PROXY_HOPS="1")
    nginx = Nginx(tmp_path / "nginx", server.port, certificate=issue_certificate(tmp_path))
    yield nginx
    nginx.stop()


def test_nine_streams_are_open_at_once_over_http_2(visit, proxy):
    page = visit(proxy.url, ignore_https_errors=True)
    assert page.evaluate(PROTOCOL) == "h2"
    expect(page.get_by_role("option", name="Echo")).to_be_attached()  # The first response has given the visitor a cookie.

    assert page.evaluate(OPEN_STREAMS, 9) == [[200] * 9, 9]


def issue_certificate(folder: Path) -> Certificate:
    issued = trustme.CA().issue_cert("127.0.0.1")
    chain, key = folder / "chat.crt", folder / "chat.key"
    chain.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)
    return Certificate(chain, key)
