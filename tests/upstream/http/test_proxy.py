import ssl
from time import monotonic

import pytest

from bff.config.parsers import no_proxy
from bff.errors import UpstreamTimeout, UpstreamUnavailable
from bff.upstream import http
from bff.upstream.http import EventSource, Proxy, new_session, tls_context
from tests.connect_proxy import ConnectProxy
from tests.live import in_parallel
from tests.upstream.http.client import DATA, KEY, fetch, read
from tests.wire_server import HANG, LAST_CHUNK, WireServer, chunk, reply, stream_head

JSON = reply(b"{}")


@pytest.fixture(scope="module")
def server_tls(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def through(ca_file):
    """A session that uses a proxy."""
    return lambda url, *exempt: new_session(tls_context(ca_file), proxy=Proxy(url, exempt))


def test_a_request_passes_through_a_tunnel_unseen(through, server_tls):
    with WireServer([JSON], tls=server_tls) as server, ConnectProxy() as proxy:
        assert http.read_json(fetch(server.url, through(proxy.url)), monotonic() + 5) == {}

        assert [tunnel.target for tunnel in proxy.tunnels] == [server.url.removeprefix("https://")]
        assert server.requests[0].headers["x-api-key"] == KEY
        assert "proxy-authorization" not in server.requests[0].headers
    assert not [data for data in proxy.first_bytes if KEY.encode() in data]
    assert KEY not in str(proxy.tunnels)


def test_a_stream_passes_through_a_tunnel(through, server_tls):
    with WireServer([stream_head(), chunk(DATA), 0.05, chunk(DATA), LAST_CHUNK], tls=server_tls) as server:
        with ConnectProxy() as proxy:
            session = through(proxy.url)
            for _ in range(2):
                assert read(EventSource(fetch(server.url, session), 5.0)) == DATA + DATA

        assert len(server.requests) == 2
        assert len(proxy.tunnels) == 1, "the tunnel is reused"


def test_requests_at_once_have_a_tunnel_each(through, server_tls):
    with WireServer([JSON], tls=server_tls) as server, ConnectProxy() as proxy:
        session = through(proxy.url)

        results = in_parallel(5, lambda _: http.read_json(fetch(server.url, session), monotonic() + 5))

    assert results == [{}] * 5


def test_the_proxy_gets_its_user_and_password(through, server_tls):
    with WireServer([JSON], tls=server_tls) as server, ConnectProxy() as proxy:
        fetch(server.url, through(proxy.url.replace("//", "//ada:p%40ss@"))).close()

        assert proxy.tunnels[0].headers["proxy-authorization"] == "Basic YWRhOnBAc3M="
        assert "proxy-authorization" not in server.requests[0].headers


def test_a_proxy_that_refuses_is_named(through):
    with ConnectProxy("407 Proxy Authentication Required") as proxy, pytest.raises(UpstreamUnavailable) as raised:
        fetch("https://127.0.0.1:1/", through(proxy.url))

    assert raised.value.detail == "GET failed: the proxy refused to connect with status 407: see HTTPS_PROXY"


def test_an_unreachable_proxy_is_named(through):
    with pytest.raises(UpstreamUnavailable) as raised:
        fetch("https://localhost:1/", through("http://127.0.0.1:1"))

    assert raised.value.detail == "GET failed: no connection to the proxy: see HTTPS_PROXY"


def test_a_silent_proxy_is_not_waited_for_longer_than_for_a_connection(through):
    start = monotonic()
    with WireServer([HANG]) as silent, pytest.raises((UpstreamUnavailable, UpstreamTimeout)):
        fetch("https://localhost:1/", through(silent.url.replace("localhost", "127.0.0.1")), seconds=20)

    assert monotonic() - start < 5


@pytest.mark.parametrize("entry", ["*", "localhost", "127.0.0.1"])
def test_exempt_hosts_are_reached_directly(through, server_tls, entry):
    with WireServer([JSON], tls=server_tls) as server, ConnectProxy() as proxy:
        url = server.url.replace("localhost", entry.replace("*", "localhost"))
        assert http.read_json(fetch(url, through(proxy.url, entry)), monotonic() + 5) == {}

    assert not proxy.tunnels


def test_plain_http_is_sent_directly(through):
    with WireServer([JSON]) as server, ConnectProxy() as proxy:
        assert http.read_json(fetch(server.url, through(proxy.url)), monotonic() + 5) == {}

    assert not proxy.tunnels


def test_the_environment_is_not_read_for_a_request(monkeypatch, ca_file, server_tls):
    with WireServer([JSON], tls=server_tls) as server, ConnectProxy() as proxy:
        for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        fetch(server.url, new_session(tls_context(ca_file))).close()

    assert not proxy.tunnels


@pytest.mark.parametrize("proxied", [False, True])
def test_an_untrusted_certificate_is_explained(server_tls, proxied):
    with WireServer([JSON], tls=server_tls) as server, ConnectProxy() as proxy, pytest.raises(UpstreamUnavailable) as raised:
        fetch(server.url, new_session(proxy=Proxy(proxy.url) if proxied else Proxy()))

    assert raised.value.detail.startswith("GET failed: the certificate is not trusted (")
    assert raised.value.detail.endswith(", which CA_FILE can name)")


def test_a_certificate_for_another_host_is_explained(ca_file, authority):
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("another.example").configure_cert(other)

    with WireServer([JSON], tls=other) as server, pytest.raises(UpstreamUnavailable) as raised:
        fetch(server.url, new_session(tls_context(ca_file)))

    assert "Hostname mismatch" in raised.value.detail
    assert "CA_FILE" not in raised.value.detail


@pytest.mark.parametrize(
    ("entries", "url"),
    [
        ("*", "https://engine.example"),
        ("engine.example", "https://engine.example/v1?q=1"),
        ("engine.example", "https://ENGINE.example."),
        ("example", "https://engine.example"),
        (".example", "https://engine.example"),
        (".engine.example", "https://engine.example"),
        ("*.example", "https://engine.example"),
        ("a.example, engine.example", "https://engine.example"),
        ("engine.example:443", "https://engine.example"),
        ("engine.example:8443", "https://engine.example:8443"),
        ("10.0.0.0/8", "https://10.1.2.3:8443"),
        ("10.1.2.3", "https://10.1.2.3"),
        ("fd00::/8", "https://[fd00::1]:8443"),
        ("[fd00::1]", "https://[fd00::1]"),
        ("[fd00::1]:8443", "https://[fd00::1]:8443"),
        ("fd00:0::1", "https://[fd00::1]"),
    ],
)
def test_no_proxy_exempts(entries, url):
    assert Proxy("http://proxy:3128", no_proxy(entries)).url_for(url) == ""


@pytest.mark.parametrize(
    ("entries", "url"),
    [
        ("engine.example", "https://myengine.example"),
        ("engine.example", "https://example"),
        ("engine.example", "https://engine.example.evil"),
        ("engine.example:8443", "https://engine.example"),
        ("10.0.0.0/8", "https://11.1.2.3"),
        ("10.0.0.0/8", "https://ten.example"),
        ("10.1.2.3", "https://10.1.2.30"),
        ("0.0.3", "https://10.0.0.3"),
        ("fd00::/8", "https://10.1.2.3"),
    ],
)
def test_no_proxy_exempts_nothing_else(entries, url):
    assert Proxy("http://proxy:3128", no_proxy(entries)).url_for(url) == "http://proxy:3128"


def test_a_password_is_not_in_the_repr():
    proxy = Proxy("http://ada:swordfish@proxy:3128")

    assert (proxy.address, "swordfish" in repr(proxy)) == ("proxy:3128", False)
