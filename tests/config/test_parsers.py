import pytest

from bff.config.environment import load_settings
from tests.config.defaults import PRODUCTION, by_name, read
from tests.refusal import refusal


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("HOST", "192.0.2.1", "192.0.2.1"),
        ("HOST", "::", "::"),
        ("HOST", "[::1]", "::1"),
        ("HOST", "2001:DB8:0::1", "2001:db8::1"),
        ("HOST", "chat.internal", "chat.internal"),
        ("PORT", "0", 0),
        ("PORT", "65535", 65535),
        ("PORT", " 8080 ", 8080),
        ("HEARTBEAT_SECONDS", "0.25", 0.25),
        ("ECHO_WORD_SECONDS", "0", 0),
        ("EXPOSE_UPSTREAM_ERRORS", "1", True),
        ("RELAY_TOOL_EVENTS", "0", False),
        ("ENGINE_REPEATABLE", "1", True),
        ("ON_BUSY", "interrupt", "interrupt"),
        ("MAX_STREAMS", "5", 5),
        ("BROKER_BASE_URL", "https://broker.example:8443/example/path/", "https://broker.example:8443/example/path"),
        ("ENGINE_BASE_URL", "http://[::1]:9000", "http://[::1]:9000"),
        ("DEFAULT_ORG", "Μετάφρασις", "Μετάφρασις"),
        ("LOG_FORMAT", "text", "text"),
        ("REDIS_URL", "rediss://:secret@redis.example:6380/0", "rediss://:secret@redis.example:6380/0"),
        ("REDIS_URL", "unix:///run/redis.sock", "unix:///run/redis.sock"),
        ("LOG_FORMAT", "json", "json"),
        ("WEBHOOK_RETRY_SECONDS", "5, 0.5,0", (5.0, 0.5, 0.0)),
        ("WEBHOOK_SECRET", f"whsec_{'k' * 32}  whsec_{'l' * 32}", f"whsec_{'k' * 32} whsec_{'l' * 32}"),
        ("AUTH_JWT_JWKS_URL", "https://id.example/keys?p=a%20b", "https://id.example/keys?p=a%20b"),
        ("CORS_ALLOW_ORIGINS", "https://a.example, HTTP://localhost:3000,", ("https://a.example", "http://localhost:3000")),
        (
            "CORS_ALLOW_ORIGINS",
            "capacitor://localhost,tauri://localhost,app://obsidian.md,https://[::1]:8443",
            ("capacitor://localhost", "tauri://localhost", "app://obsidian.md", "https://[::1]:8443"),
        ),
        (
            "CORS_ALLOW_ORIGINS",
            "chrome-extension://aapbdbdomjkkjkaonfhkkikfgjllcleb, moz-extension://7F4E2C1A-0a1b-4c2d-8e3f-123456789abc",
            ("chrome-extension://aapbdbdomjkkjkaonfhkkikfgjllcleb", "moz-extension://7f4e2c1a-0a1b-4c2d-8e3f-123456789abc"),
        ),
        ("CORS_ALLOW_ORIGINS", "https://a.example:443,http://b.example:80", ("https://a.example", "http://b.example")),
        ("CORS_ALLOW_ORIGINS", "https://a.example:80", ("https://a.example:80",)),
    ],
)
def test_settings_are_parsed(name, text, value):
    assert by_name(load_settings({"APP_ENV": "development", name: text}))[name] == value


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("HEARTBEAT_SECONDS", "soon", "is not a number"),
        ("HEARTBEAT_SECONDS", "15s", "is not a number"),
        ("HEARTBEAT_SECONDS", "1e3", "is not a number"),
        ("HEARTBEAT_SECONDS", "nan", "is not a number"),
        ("HEARTBEAT_SECONDS", "inf", "is not a number"),
        ("HEARTBEAT_SECONDS", "-1", "is not a number"),
        ("HEARTBEAT_SECONDS", "1\n2", "is not a number"),
        ("HEARTBEAT_SECONDS", "0", "is not above zero"),
        ("HEARTBEAT_SECONDS", "0.0", "is not above zero"),
        ("ECHO_WORD_SECONDS", "slowly", "is not a number"),
        *(("HOST", text, "is neither an address nor a host name") for text in ("http://x", "a b", "-a", "[::1", "1.2.3.4:80")),
        ("WEBHOOK_RETRY_SECONDS", "5,soon", "is not a number"),
        ("PORT", "http", "is not a whole number"),
        ("PORT", "8000.5", "is not a whole number"),
        ("PORT", "٨٠٠٠", "is not a whole number"),
        ("PORT", "9" * 5000, "is not a whole number"),
        ("PORT", "-1", "is not between 0 and 65535"),
        ("PORT", "65536", "is not between 0 and 65535"),
        ("WEB_CONCURRENCY", "0", "is not between 1 and 256"),
        ("MAX_STREAMS", "0", f"is not between 1 and {2**40}"),
        ("MAX_BODY_BYTES", "1", f"is not between 1024 and {2**40}"),
        ("RELAY_TOOL_EVENTS", "yes", "is neither 0 nor 1"),
        ("APP_ENV", "staging", "is not one of production, development"),
        ("AUTH_MODE", "none", "is not one of anonymous, proxy, jwt"),
        ("HEARTBEAT", "ping", "is not one of event, comment"),
        ("ON_BUSY", "wait", "is not one of enqueue, reject, interrupt"),
        ("ON_DISCONNECT", "stop", "is not one of continue, cancel"),
        ("LOG_LEVEL", "info", "is not one of DEBUG, INFO, WARNING, ERROR"),
        ("LOG_FORMAT", "xml", "is not one of json, text"),
        ("AUTH_PROXY_USER_HEADER", "X Forwarded", "is not a header's name"),
        ("AUTH_PROXY_USER_HEADER", "X-User\r\nX-Admin", "is not a header's name"),
        ("AUTH_JWT_COOKIE", "a b", "is not a cookie's name"),
        ("AUTH_JWT_JWKS_URL", "id.example/keys", "is not an http(s) URL"),
        ("AUTH_JWT_JWKS_URL", "https://id.example/a b", "is not an http(s) URL"),
        ("AUTH_JWT_JWKS_URL", "https://id.example/keys#1", "holds more than scheme, host, port and path"),
        ("CORS_ALLOW_ORIGINS", "*", "is not a list of origins like https://chat.example"),
        ("CORS_ALLOW_ORIGINS", "null", "is not a list of origins like https://chat.example"),
        ("CORS_ALLOW_ORIGINS", "https://a.example/path", "is not a list of origins like https://chat.example"),
        ("CORS_ALLOW_ORIGINS", "https://a.example/", "is not a list of origins like https://chat.example"),
        ("CORS_ALLOW_ORIGINS", "https://*.example", "is not a list of origins like https://chat.example"),
        ("CORS_ALLOW_ORIGINS", "https://a.example:99999", "is not a list of origins like https://chat.example"),
        ("CORS_ALLOW_ORIGINS", "https://a.example;https://b.example", "is not a list of origins like https://chat.example"),
        ("CORS_ALLOW_ORIGINS", "chat.example", "is not a list of origins like https://chat.example"),
        ("CORS_ALLOW_ORIGINS", "capacitor:localhost", "is not a list of origins like https://chat.example"),
        ("CORS_ALLOW_ORIGINS", "file://", "is not a list of origins like https://chat.example"),
        ("CORS_ALLOW_ORIGINS", "https://chät.example", "is not a list of origins like https://chat.example"),
        ("TRUSTED_PROXY_HOPS", "-1", "is not between 0 and 16"),
        ("BROKER_BASE_URL", "broker:8080", "is not an http(s) URL"),
        ("BROKER_BASE_URL", "ftp://broker", "is not an http(s) URL"),
        ("BROKER_BASE_URL", "//broker", "is not an http(s) URL"),
        ("BROKER_BASE_URL", "http://", "is not an http(s) URL"),
        ("BROKER_BASE_URL", "http://:8080", "is not an http(s) URL"),
        ("BROKER_BASE_URL", "http://bro ker", "is not an http(s) URL"),
        ("BROKER_BASE_URL", "http://brökér", "is not an http(s) URL"),
        ("DEFAULT_ORG", "a/b", "holds a slash"),
        ("ENGINE_BASE_URL", "http://engine?key=1", "holds more than scheme, host, port and path"),
        ("ENGINE_BASE_URL", "http://engine#top", "holds more than scheme, host, port and path"),
    ],
)
def test_an_invalid_value_is_refused_with_its_name_and_the_reason(name, text, reason):
    assert refusal(PRODUCTION | {name: text}) == f"{name}={text!r} {reason}."


@pytest.mark.parametrize(
    "url", ["http://user@engine", "http://user:pw@engine", "http://:pw@engine", "http://engine:port", "http://engine:99999"]
)
def test_a_url_with_credentials_or_an_invalid_port_is_refused(url):
    assert refusal(PRODUCTION | {"ENGINE_BASE_URL": url}).startswith("ENGINE_BASE_URL=")


def test_a_malformed_url_is_refused():
    assert refusal(PRODUCTION | {"ENGINE_BASE_URL": "http://[::1"}).startswith("ENGINE_BASE_URL='http://[::1' ")


def test_the_password_of_a_refused_url_is_not_shown():
    message = refusal(PRODUCTION | {"BROKER_BASE_URL": "https://user:pa/ss@broker.example"})

    assert message.startswith("BROKER_BASE_URL='https://…@broker.example' ")


@pytest.mark.parametrize("text", ["http://redis.example", "redis://", "redis://redis.example:port", "swordfish"])
def test_an_invalid_secret_is_named_but_not_shown(text):
    assert refusal(PRODUCTION | {"REDIS_URL": text}) == "REDIS_URL is not a Redis URL."


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///chat.db",
        "sqlite:////var/lib/chat.db",
        "postgres://chat:p%40ss@db.example:5432/chat?sslmode=require",
        "postgresql:///chat",
        "postgresql+psycopg://db.example/chat",
    ],
)
def test_a_database_url_is_unchanged_and_not_in_repr(url):
    settings = read(DATABASE_URL=url)

    assert settings.database_url == url
    assert url not in repr(settings)


@pytest.mark.parametrize(
    "url",
    [
        "chat.db",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "postgres://u:password@host",
        "postgres://u:password@host:port/name",
        "mysql://u:password@h/n",
        "http://u:password@host/name",
    ],
)
def test_an_invalid_database_url_is_refused(url):
    message = refusal(PRODUCTION | {"DATABASE_URL": url})

    assert message.startswith("DATABASE_URL is neither")
    assert "password" not in message


@pytest.mark.parametrize(
    "text", ["secret" * 8, "whsec_c2hvcnQ=", "whsec_" + "*" * 32, "whsec_" + "k" * 92, f"{'whsec_' + 'k' * 32} " * 3]
)
def test_an_invalid_webhook_secret_is_refused(text):
    reason = "is not whsec_ and 24 to 64 bytes in Base64, or two of them separated by a space"

    assert refusal({"APP_ENV": "development", "WEBHOOK_SECRET": text}) == f"WEBHOOK_SECRET {reason}."
