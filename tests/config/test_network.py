"""CA_FILE, HTTPS_PROXY and NO_PROXY."""

import pytest
import trustme

from bff import create_app
from bff.config.environment import load_settings
from bff.errors import SettingsError
from bff.upstream.http import Proxy
from tests.config.defaults import PRODUCTION, read
from tests.live import BASE_ENVIRONMENT, Server
from tests.refusal import refusal


@pytest.fixture
def ca_file(tmp_path):
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    return str(tmp_path / "ca.pem")


def test_a_ca_file_is_accepted(ca_file):
    assert read(CA_FILE=ca_file).ca_file == ca_file


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read"),
        (b"", "holds no certificate in PEM"),
        (b"\x30\x82\xff", "holds no certificate in PEM"),
        (b"-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n", "holds no certificate in PEM"),
    ],
    ids=["missing", "empty", "DER", "a key"],
)
def test_a_file_without_a_certificate_is_refused(tmp_path, content, reason):
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)

    assert refusal(PRODUCTION | {"CA_FILE": str(path)}) == f"CA_FILE={str(path)!r} {reason}."


def test_a_folder_is_refused(tmp_path):
    assert refusal(PRODUCTION | {"CA_FILE": str(tmp_path)}) == f"CA_FILE={str(tmp_path)!r} cannot be read."


def test_a_damaged_certificate_is_refused_when_the_app_is_built(tmp_path):
    path = tmp_path / "ca.pem"
    path.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")

    with pytest.raises(SettingsError) as raised:
        create_app(load_settings(BASE_ENVIRONMENT | {"CA_FILE": str(path)}))

    assert str(raised.value) == f"CA_FILE={str(path)!r} holds no valid certificate in PEM."


@pytest.mark.live
def test_a_server_does_not_start_with_a_ca_file_that_does_not_exist(tmp_path):
    server = Server("gunicorn", tmp_path / "log", CA_FILE=str(tmp_path / "none.pem"))

    assert server.process.wait(20) == 3
    assert server.log.strip() == f"CA_FILE='{tmp_path}/none.pem' cannot be read."


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("http://proxy.example:3128", "proxy.example:3128"),
        ("http://ada:p%40ss@proxy.example:3128/", "proxy.example:3128"),
        ("proxy.example:3128", "proxy.example:3128"),
        ("ada:pw@proxy.example:3128", "proxy.example:3128"),
        ("http://[::1]:3128", "[::1]:3128"),
        ("proxy", "proxy"),
    ],
)
def test_a_proxy_is_accepted_with_and_without_its_scheme(text, address):
    proxy = Proxy.of(read(HTTPS_PROXY=text))

    assert (proxy.url_for("https://engine.example").partition("://")[0], proxy.address) == ("http", address)


@pytest.mark.parametrize(
    "text",
    [
        "https://u:swordfish@proxy",
        "socks5://u:swordfish@proxy",
        "http://",
        "http://u:swordfish@proxy:port",
        "http://proxy/swordfish",
        "http://[swordfish",
    ],
)
def test_another_kind_of_proxy_is_refused_without_its_password(text):
    expected = "HTTPS_PROXY is not the URL of an HTTP proxy, http://[user:password@]host[:port]."

    assert refusal(PRODUCTION | {"HTTPS_PROXY": text}) == expected


def test_lower_case_names_have_precedence():
    upper = {"HTTPS_PROXY": "http://upper:1", "NO_PROXY": "upper.example"}
    lower = {"https_proxy": "http://lower:1", "no_proxy": "lower.example"}

    assert read(**upper).https_proxy == "http://upper:1"
    assert read(**lower).https_proxy == "http://lower:1"
    assert read(**upper, **lower).https_proxy == "http://lower:1"
    assert read(**upper, **lower).no_proxy == ("lower.example",)
    assert read(**upper, https_proxy="").https_proxy == "http://upper:1"


def test_exempt_hosts_are_separated_by_commas_or_spaces():
    text = " Engine.example, .internal,*.lan  10.0.0.0/8,[::1]:8443,::1,localhost:8443,* ,"

    exempt = ("engine.example", ".internal", "*.lan", "10.0.0.0/8", "[::1]:8443", "::1", "localhost:8443", "*")
    assert read(NO_PROXY=text).no_proxy == exempt


@pytest.mark.parametrize("text", ["http://engine.example", "10.0.0.0/33", "engine.example/8", "a;b", "a.*.example"])
def test_other_entries_are_refused(text):
    expected = "is not a list of hosts, domains and networks like engine.internal,10.0.0.0/8"

    assert refusal(PRODUCTION | {"NO_PROXY": text}) == f"NO_PROXY={text!r} {expected}."
