import pytest
from flask import Flask, jsonify, request, url_for

from bff.http.forwarded import TrustedProxies

ADDRESS = "192.0.2.1"


@pytest.fixture(params=[1, 2, 3])
def hops(request):
    return request.param


@pytest.fixture
def client(hops):
    app = Flask("test")
    app.wsgi_app = TrustedProxies(app.wsgi_app, hops)

    @app.get("/x")
    def seen():
        return jsonify(
            scheme=request.scheme, host=request.host, address=request.remote_addr, path=request.path, url=url_for("seen")
        )

    return app.test_client()


def seen(client, **headers: str) -> dict:
    return client.get("/x", headers={f"X-Forwarded-{name}": value for name, value in headers.items()}).json


def test_the_address_is_counted_from_the_nearest_proxy(client, hops):
    chain = [ADDRESS, "198.51.100.1", "198.51.100.2"][:hops]

    assert seen(client, For=", ".join(["203.0.113.9", *chain]))["address"] == ADDRESS


@pytest.mark.parametrize("scheme", ["https", "HTTPS", "http, https", "http,https,https"])
def test_the_scheme_is_the_nearest_proxys(client, scheme):
    assert seen(client, Proto=scheme)["scheme"] == "https"


@pytest.mark.parametrize("host", ["chat.example", "evil.example, chat.example", "a, b, chat.example"])
def test_the_host_is_the_nearest_proxys(client, host):
    assert seen(client, Host=host)["host"] == "chat.example"


@pytest.mark.parametrize("prefix", ["/a/chat", "/a/chat/", "/evil, /a/chat"])
def test_the_prefix_is_the_nearest_proxys(client, prefix):
    assert seen(client, Prefix=prefix).items() >= {"url": "/a/chat/x", "path": "/x"}.items()


@pytest.mark.parametrize("prefix", ["//evil.example", "https://evil.example", "chat", "/a//b", "/a?b", "/a%0d", "/", "\\evil"])
def test_a_prefix_that_is_no_path_is_ignored(client, prefix):
    assert seen(client, Prefix=prefix)["url"] == "/x"
