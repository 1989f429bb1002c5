"""The documented chains of proxies, with real nginx processes: scheme and host of the browser's request reach the app."""

import http.client
import json
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme

from tests.deploy.nginx_server import Certificate, Nginx

pytestmark = pytest.mark.live


class Response(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    json: dict


class Chain:
    """A browser in front of proxies that trust each other."""

    def __init__(self, entrance: Nginx, authority: Path) -> None:
        self._port = entrance.port
        self._context = ssl.create_default_context(cafile=str(authority))

    def request(self, method: str, path: str, **headers: str) -> Response:
        """Underscores in header names stand for dashes."""
        connection = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=10, context=self._context)
        fields = {"Host": "chat.example"} | {name.replace("_", "-"): value for name, value in headers.items()}
        with closing(connection):
            connection.request(method, path, headers=fields)
            response = connection.getresponse()
            return Response(response.status, response.headers, json.loads(response.read()))


@pytest.fixture(scope="module", params=[1, 2, 3])
def chain(request, share, tmp_path_factory) -> Iterator[Chain]:
    """Of as many nginx processes, the first of which terminates TLS."""
    folder = tmp_path_factory.mktemp("chain")
    authority = trustme.CA()
    pair = authority.issue_cert("127.0.0.1")
    certificate = Certificate(folder / "chain.pem", folder / "key.pem")
    certificate.chain.write_bytes(pair.cert_chain_pems[0].bytes())
    certificate.key.write_bytes(pair.private_key_pem.bytes())
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    port = share("gunicorn", AUTH_MODE="anonymous", TRUSTED_PROXY_HOPS=str(request.param)).port
    with ExitStack() as stack:
        for number in range(request.param - 1):
            inner = Nginx(folder / f"inner-{number}", port, inner=True)
            stack.callback(inner.stop)
            port = inner.port
        entrance = Nginx(folder / "entrance", port, certificate=certificate)
        stack.callback(entrance.stop)
        yield Chain(entrance, folder / "ca.pem")


def test_a_chain_with_tls_keeps_secure_cookies_and_hsts(chain):
    response = chain.request("GET", "/api/conversations")

    assert response.status == 200
    assert "; Secure" in response.headers["Set-Cookie"]
    assert "max-age=" in response.headers["Strict-Transport-Security"]


def test_a_chain_keeps_the_pages_origin(chain):
    assert chain.request("POST", "/api/ticket", Origin="https://chat.example").status == 201
    assert chain.request("POST", "/api/ticket", Origin="http://chat.example").status == 403
    assert chain.request("POST", "/api/ticket", Origin="https://evil.example").status == 403


def test_a_clients_own_forwarded_headers_have_no_effect(chain):
    forged = {"X_Forwarded_Host": "evil.example", "X_Forwarded_Proto": "http", "X_Forwarded_Prefix": "/evil"}

    response = chain.request("POST", "/api/ticket", Origin="https://evil.example", **forged)

    assert response.status == 403
    assert "Strict-Transport-Security" in response.headers
