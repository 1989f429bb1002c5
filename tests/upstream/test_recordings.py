import pytest
from hypothesis import given
from hypothesis import strategies as st

from bff.auth.identity import Identity
from bff.errors import ChatError, InvalidRequest, NotFound, RangeNotSatisfiable
from bff.upstream.recordings import Address, Part, address, part

ENGINE = "https://engine.example"
ADA = Identity("ada", "Word Collective")
KEY = "replies/Word%20Collective/ada/1.mp3"
PATH = f"/api/v1/audio/{KEY}"
URL = f"{ENGINE}{PATH}"

# URLs


@pytest.mark.parametrize("prefix", ["/api/v1/audio/", "/api/v1/voice-submissions/"])
def test_a_recording_of_this_user_is_found(prefix):
    assert address(f"{ENGINE}{prefix}{KEY}", ENGINE, ADA) == Address(f"{prefix}{KEY}", "1.mp3")


@pytest.mark.parametrize(
    ("engine", "origin"),
    [
        ("https://engine.example", "https://engine.example:443"),
        ("https://engine.example:443", "https://engine.example"),
        ("https://Engine.Example", "https://engine.example"),
        ("http://127.0.0.1:4321", "http://127.0.0.1:4321"),
        ("http://[::1]:9000", "http://[::1]:9000"),
        ("http://[::1]", "http://[::1]:80"),
        ("https://engine.example/some/path", "https://engine.example/some/path"),
        ("https://engine.example/some/path", "https://engine.example"),
    ],
)
def test_the_engines_origin_may_be_spelled_differently(engine, origin):
    assert address(f"{origin}{PATH}", engine, ADA).path == PATH


def test_a_path_is_encoded_again_whatever_the_user_id():
    who = Identity("a/../../x?y#z@x.org", "org")
    path = "/api/v1/audio/k/org/a%2F..%2F..%2Fx%3Fy%23z%40x.org/my%20%C3%A9%3F.mp3"

    assert address(ENGINE + path, ENGINE, who) == Address(path, "my_.mp3")


def test_a_decomposed_user_id_in_the_url_is_the_users_own():
    path = "/api/v1/audio/k/org/jose%CC%81/1.mp3"

    assert address(ENGINE + path, ENGINE, Identity("jos\u00e9", "org")).path == path


def test_a_path_is_decoded_once():
    assert address(f"{ENGINE}/api/v1/audio/k/Word%20Collective/ada/..%252f1", ENGINE, ADA).path.endswith("/..%252f1")
    with pytest.raises(NotFound):
        address(f"{ENGINE}/api/v1/audio/k/Word%2520Collective/ada/1", ENGINE, ADA)


FOREIGN = {
    "another host": "https://evil.example",
    "another scheme": "http://engine.example",
    "no http": "ftp://engine.example",
    "a file": "file://engine.example",
    "an upper-case scheme": "HTTPS://engine.example",
    "a host in capitals": "https://ENGINE.example",
    "another port": "https://engine.example:8443",
    "no port": "https://engine.example:",
    "an odd port": "https://engine.example:0443",
    "a user name": "https://ada@engine.example",
    "a password": "https://ada:secret@engine.example",
    "the engine as a user name": "https://engine.example@evil.example",
    "the engine as a password": "https://x:engine.example@evil.example",
    "the engine as a subdomain": "https://engine.example.evil.example",
    "a subdomain of the engine": "https://x.engine.example",
    "a dot at the end": "https://engine.example.",
    "an IPv6 address": "https://[::1]",
    "an IPv4 address in IPv6": "https://[::ffff:127.0.0.1]",
    "an IPv6 zone": "https://[fe80::1%25eth0]",
    "an IPv4 address": "https://127.0.0.1",
    "a number for an address": "https://2130706433",
    "a name that resolves to us": "https://127.0.0.1.nip.io",
    "a full stop that is another": "https://engine\u3002example",
    "a letter that is another": "https://\u0435ngine.example",
    "an encoded letter": "https://%65ngine.example",
    "a backslash": "https://evil.example\\@engine.example",
    "a backslash after the engine": "https://engine.example\\.evil.example",
    "a space before": " https://engine.example",
    "a tab inside": "https://eng\tine.example",
    "a line feed": "https://engine.example\n",
    "one slash": "https:/engine.example",
    "three slashes": "https:///engine.example",
    "no scheme": "//engine.example",
    "no origin": "",
    "nothing but a scheme": "https://",
}


@pytest.mark.parametrize("origin", FOREIGN.values(), ids=FOREIGN)
def test_another_origin_is_rejected(origin):
    with pytest.raises(InvalidRequest):
        address(f"{origin}{PATH}", ENGINE, ADA)


ODD_PATHS = [
    "",
    "/",
    "/api/v1/audio",
    "/api/v1/audio/",
    "/api/v1/audio/k",
    "/api/v1/audio/k/Word%20Collective/ada",
    "/api/v1/audio/k/Word%20Collective/ada/",
    "/api/v1/audio/k/Word%20Collective/ada/x/y",
    "/api/v1/audio//Word%20Collective/ada/1",
    "/api/v1/audio/../audio/k/Word%20Collective/ada/1",
    "/api/v1/audio/k/Word%20Collective/ada/../eve/1",
    "/api/v1/audio/%2e%2e/Word%20Collective/ada/1",
    "/api/v1/audio/./Word%20Collective/ada/1",
    "/api/v1/audio/k/Word%20Collective/ada/..",
    "/api/v1/audio/k/Word%20Collective/ada/%2e%2E",
    "/api/v1/audio/k/Word%20Collective/ada/..%2feve%2f1",
    "/api/v1/audio/k/Word%20Collective/ada/..%5ceve",
    "/api/v1/audio/..%2fWord%20Collective/Word%20Collective/ada/1",
    "/api/v1/audio/k/Word%20Collective/ada/1%00.mp3",
    "/api/v1/audio/k/Word%20Collective/ada/1%0d%0aX:y",
    "/api/v1/audio/k/Word%20Collective/ada/%ff",
    "/api/v1/audio/k/Word%20Collective/ada/1?x=y",
    "/api/v1/audio/k/Word%20Collective/ada/1#x",
    "/api/v1/audio/k/Word%20Collective/ada\\1",
    "/api/v1/orgs/Word%20Collective/users/ada/history",
    "/API/v1/audio/k/Word%20Collective/ada/1",
    "//api/v1/audio/k/Word%20Collective/ada/1",
    "/x/api/v1/audio/k/Word%20Collective/ada/1",
    "/%61pi/v1/audio/k/Word%20Collective/ada/1",
    f"{PATH}{'x' * 2048}",
]


@pytest.mark.parametrize("path", ODD_PATHS, ids=lambda path: path[:60])
def test_a_path_that_is_no_recordings_is_rejected(path):
    with pytest.raises(InvalidRequest):
        address(ENGINE + path, ENGINE, ADA)


@pytest.mark.parametrize(
    "owner",
    ["Word%20Collective/eve", "other/ada", "word%20collective/ada", "Word%20Collective/ada%20", "ada/Word%20Collective"],
)
def test_another_users_recording_is_not_found(owner):
    with pytest.raises(NotFound):
        address(f"{ENGINE}/api/v1/audio/k/{owner}/1.mp3", ENGINE, ADA)


@given(
    st.text(max_size=60),
    st.sampled_from(["", ENGINE, f"{ENGINE}/api/v1/audio/", f"{ENGINE}/api/v1/audio/k/Word%20Collective/ada/"]),
)
def test_only_this_users_recordings_are_found_whatever_the_url(text, start):
    try:
        result = address(start + text, ENGINE, ADA)
    except ChatError:
        return

    _, _, key = result.path.partition("/api/v1/audio/")
    kind, org, user, file = key.split("/")
    assert (org, user) == ("Word%20Collective", "ada")
    assert kind not in {"", ".", ".."}
    assert file not in {"", ".", ".."}
    assert not set(result.file) - set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")


# Ranges


@pytest.mark.parametrize(
    ("header", "result"),
    [
        ("bytes=0-0", Part(0, 1)),
        ("bytes=0-", Part(0, 10)),
        ("bytes=3-5", Part(3, 6)),
        ("bytes=9-", Part(9, 10)),
        ("bytes=3-999999999999999", Part(3, 10)),
        ("bytes=-4", Part(6, 10)),
        ("bytes=-99", Part(0, 10)),
        (" bytes=3-5 ", Part(3, 6)),
        ("Bytes=3-5", Part(3, 6)),
        ("BYTES=-4", Part(6, 10)),
    ],
)
def test_a_range_is_parsed(header, result):
    assert part(header, 10) == result


@pytest.mark.parametrize(
    "header",
    ["", "bytes", "bytes=", "bytes=-", "bytes=5-3", "bytes=a-b", "bytes=0-1,3-4", "lines=0-1", "bytes=٣-٥", "bytes=-1-2"],
)
def test_anything_but_a_single_range_is_ignored(header):
    assert part(header, 10) is None


@pytest.mark.parametrize(("header", "size"), [("bytes=10-", 10), ("bytes=10-20", 10), ("bytes=-0", 10), ("bytes=0-", 0)])
def test_an_empty_range_cannot_be_satisfied(header, size):
    with pytest.raises(RangeNotSatisfiable):
        part(header, size)
