"""`flask doctor` with CA_FILE, HTTPS_PROXY and NO_PROXY; and what it says of models and key sets."""

import json
import ssl

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.api.cli.test_doctor import KEY, REFUSED, UNREACHABLE_URL, run
from tests.connect_proxy import ConnectProxy
from tests.wire_server import LAST_CHUNK, NUMBERED, WireServer, chunk, reply, stream_head

JWT = {"AUTH_MODE": "jwt", "AUTH_JWT_AUDIENCE": "chat", "AUTH_JWT_ISSUER": "tests"}
PUBLIC_KEY = rsa.generate_private_key(65537, 2048).public_key()
KEY_SET = json.dumps({"keys": [jwt.algorithms.RSAAlgorithm.to_jwk(PUBLIC_KEY, as_dict=True) | {"kid": "1"}]}).encode()


def answer(request):
    if request.path == "/keys":
        return [reply(KEY_SET)]
    if request.path.endswith("/queue"):
        return [reply(NUMBERED)]
    return [reply(b'{"status":"healthy"}')]


UPSTREAMS = {
    "broker": (lambda url: {"BROKER_BASE_URL": url, "BROKER_API_KEY": KEY}, "The broker at {} answers and accepts our key"),
    "engine": (lambda url: {"ENGINE_BASE_URL": url, "ENGINE_API_KEY": KEY}, "The engine at {} answers and accepts our key"),
    "model": (
        lambda url: {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": KEY},
        "The model's server at {} answers and accepts our key",
    ),
    "key set": (lambda url: JWT | {"AUTH_JWT_JWKS_URL": f"{url}/keys"}, "The key set at {}/keys has 1 usable key"),
}


@pytest.fixture
def server(authority):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(tls)
    with WireServer(answer, tls=tls, queue=None) as server:
        yield server


@pytest.fixture
def proxy():
    with ConnectProxy() as proxy:
        yield proxy


def line_about(url, settings):
    status, lines = run("doctor", **settings)
    (line,) = [line for line in lines if f" at {url}" in line]
    assert status == (0 if line.startswith("ok ") else 1)
    return line


@pytest.mark.parametrize(("settings", "message"), UPSTREAMS.values(), ids=UPSTREAMS)
def test_each_upstream_is_tried_through_the_proxy_with_the_ca_file(server, proxy, ca_file, settings, message):
    line = line_about(server.url, settings(server.url) | {"CA_FILE": ca_file, "HTTPS_PROXY": f"http://ada:pw@{proxy.address}"})

    way = f"through the proxy {proxy.address}, with the authorities of {ca_file}"
    assert line == f"ok     {message.format(server.url)}, {way}."
    assert {tunnel.target for tunnel in proxy.tunnels} == {server.url.removeprefix("https://")}
    assert server.requests


@pytest.mark.parametrize(("settings", "message"), UPSTREAMS.values(), ids=UPSTREAMS)
def test_exempt_upstreams_are_tried_directly(server, proxy, ca_file, settings, message):
    line = line_about(
        server.url, settings(server.url) | {"CA_FILE": ca_file, "HTTPS_PROXY": proxy.url, "NO_PROXY": "localhost"}
    )

    assert line == f"ok     {message.format(server.url)}, directly, as NO_PROXY says, with the authorities of {ca_file}."
    assert not proxy.tunnels


@pytest.mark.parametrize(("settings", "_"), UPSTREAMS.values(), ids=UPSTREAMS)
def test_a_private_authority_is_reported_without_a_ca_file(server, settings, _):
    line = line_about(server.url, settings(server.url))

    assert line.startswith("WRONG  ")
    assert "the certificate is not trusted (" in line
    assert "which CA_FILE can name" in line
    assert not server.requests


@pytest.mark.parametrize(("settings", "_"), UPSTREAMS.values(), ids=UPSTREAMS)
def test_a_proxy_that_refuses_is_reported(server, settings, _):
    with ConnectProxy("403 Forbidden") as proxy:
        line = line_about(server.url, settings(server.url) | {"HTTPS_PROXY": proxy.url})

    assert line.startswith("WRONG  ")
    assert f"the proxy refused to connect with status 403: see HTTPS_PROXY), through the proxy {proxy.address}:" in line


def test_a_service_over_plain_http_is_not_sent_through_the_proxy(proxy):
    with WireServer(answer, queue=None) as server:
        line = line_about(server.url, UPSTREAMS["broker"][0](server.url) | {"HTTPS_PROXY": proxy.url})

    assert line.endswith(" accepts our key, directly: HTTPS_PROXY is for https:// only.")
    assert not proxy.tunnels


@pytest.mark.parametrize(
    ("response", "start", "end"),
    [
        (REFUSED, "WRONG", "refuses our key: see OPENAI_API_KEY."),
        (reply(b"", "503 Service Unavailable"), "WRONG", "answers 503 to a request for its models."),
        (reply(b"", "404 Not Found"), "ok   ", "which it may not support: see OPENAI_BASE_URL."),
    ],
)
def test_a_models_server_is_judged_by_its_status(response, start, end):
    with WireServer([response]) as server:
        line = line_about(server.url, UPSTREAMS["model"][0](server.url))

    assert line.startswith(start)
    assert line.endswith(end)


def test_an_unreachable_models_server_is_reported():
    line = line_about(UNREACHABLE_URL, UPSTREAMS["model"][0](UNREACHABLE_URL))

    assert line.startswith(f"WRONG  The model's server at {UNREACHABLE_URL} cannot be reached (GET failed")


def test_a_key_set_without_keys_is_reported():
    with WireServer([reply(b'{"keys": []}')]) as server:
        line = line_about(server.url, UPSTREAMS["key set"][0](server.url))

    assert line.endswith("has no key that can verify a token: see AUTH_JWT_JWKS_URL.")


def test_unusable_keys_are_named():
    weak = rsa.generate_private_key(65537, 1024).public_key()
    jwks = [jwt.algorithms.RSAAlgorithm.to_jwk(key, as_dict=True) for key in (PUBLIC_KEY, weak)]
    content = json.dumps({"keys": [jwks[0] | {"kid": "good"}, jwks[1] | {"kid": "weak"}]}).encode()
    with WireServer([reply(content)]) as server:
        status, lines = run("doctor", **JWT, AUTH_JWT_JWKS_URL=server.url)

    assert status == 0
    assert any(line.endswith("has 1 usable key.") for line in lines)
    assert "ok     The key 'weak' ('RSA') has 1024 bits instead of 2048 to 8192. Tokens that it signs are refused." in lines


def test_diagnose_uses_the_proxy_and_the_ca_file(authority, proxy, ca_file):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(tls)
    ticks = b"".join(f'data: {{"type":"tick","elapsed_ms":{number * 200}}}\n\n'.encode() for number in range(10))

    with WireServer([stream_head()], [stream_head(), chunk(ticks), LAST_CHUNK], tls=tls) as server:
        url = server.url
        status, lines = run("diagnose", url, CA_FILE=ca_file, HTTPS_PROXY=proxy.url)

    assert (status, lines[0]) == (1, "WRONG  10 of 10 ticks arrived together: a proxy buffers the stream.")
    assert {tunnel.target for tunnel in proxy.tunnels} == {url.removeprefix("https://")}


WEBHOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({}, "ok     Webhooks are signed with WEBHOOK_SECRET and sent to each message's callback_url."),
        (
            {"WEBHOOK_URL": "https://8.8.8.8/hook"},
            "ok     Webhooks are signed with WEBHOOK_SECRET and sent to https://8.8.8.8.",
        ),
        (
            {"WEBHOOK_URL": "https://127.0.0.1/hook"},
            "WRONG  WEBHOOK_URL is in a private network: see WEBHOOK_ALLOW_ORIGINS, which may name https://127.0.0.1.",
        ),
        (
            {"WEBHOOK_URL": "http://127.0.0.1:80/hook", "WEBHOOK_ALLOW_ORIGINS": "http://127.0.0.1"},
            "ok     Webhooks are signed with WEBHOOK_SECRET and sent to http://127.0.0.1.",
        ),
    ],
)
def test_the_webhook_url_is_checked(settings, line):
    _, lines = run("doctor", WEBHOOK_SECRET=WEBHOOK_SECRET, **settings)

    assert line in lines
