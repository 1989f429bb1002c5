"""The requests of the running app to each of its services: through HTTPS_PROXY, with CA_FILE."""

import ssl

import pytest

from tests.connect_proxy import ConnectProxy
from tests.live import ADA, new_app
from tests.security.matrix import bearer
from tests.wire_server import NUMBERED, WireServer, reply

KEY = "k" * 40
JWT = {"AUTH_MODE": "jwt", "AUTH_JWT_AUDIENCE": "chat", "AUTH_JWT_ISSUER": "tests"}
MESSAGE = {"message": "hello"}

REQUESTS = {
    "broker": (lambda url: {"BROKER_BASE_URL": url, "BROKER_API_KEY": KEY}, "POST", "/api/chat/stream"),
    "engine": (lambda url: {"ENGINE_BASE_URL": url, "ENGINE_API_KEY": KEY}, "GET", "/api/preferences"),
    "model": (lambda url: {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": KEY}, "POST", "/api/chat"),
    "key set": (lambda url: JWT | {"AUTH_JWT_JWKS_URL": f"{url}/keys"}, "GET", "/api/preferences"),
}
each_service = pytest.mark.parametrize(("settings", "method", "path"), REQUESTS.values(), ids=REQUESTS)


@pytest.fixture
def server(authority):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(tls)
    with WireServer(lambda request: [reply(NUMBERED if request.path.endswith("/queue") else b"{}")], tls=tls) as server:
        yield server


@pytest.fixture
def proxy(authority, tmp_path):
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with ConnectProxy() as proxy:
        yield proxy


def call(settings, method, path):
    app = new_app(**settings)
    headers = bearer("ada", "home") if settings.get("AUTH_MODE") == "jwt" else ADA
    with app.test_client().open(path, method=method, json=MESSAGE if method == "POST" else None, headers=headers) as response:
        return response.get_data(as_text=True)


@each_service
def test_each_service_is_called_through_the_proxy(server, proxy, tmp_path, settings, method, path):
    network = {"CA_FILE": f"{tmp_path}/ca.pem", "HTTPS_PROXY": proxy.url}

    call(settings(server.url) | network, method, path)

    assert {tunnel.target for tunnel in proxy.tunnels} == {server.url.removeprefix("https://")}
    assert server.requests


@each_service
def test_exempt_services_are_called_directly(server, proxy, tmp_path, settings, method, path):
    network = {"CA_FILE": f"{tmp_path}/ca.pem", "HTTPS_PROXY": proxy.url, "NO_PROXY": "localhost"}

    call(settings(server.url) | network, method, path)

    assert not proxy.tunnels
    assert server.requests


@each_service
def test_without_ca_file_a_private_authority_is_not_trusted(server, settings, method, path):
    call(settings(server.url), method, path)

    assert not server.requests


@pytest.mark.parametrize("name", ["broker", "engine", "model", "key set"])
def test_the_log_says_that_a_certificate_is_not_trusted(server, capfd, name):
    settings, method, path = REQUESTS[name]

    call(settings(server.url), method, path)

    assert "the certificate is not trusted (" in capfd.readouterr().err


def test_bundled_services_are_called_without_the_proxy(proxy):
    reply_text = call({"HTTPS_PROXY": proxy.url}, "POST", "/api/chat/stream")

    assert '"type":"complete"' in reply_text
    assert not proxy.tunnels
