from urllib.parse import quote

import pytest
import responses

from bff.upstream.messages import AUDIO_MAX_BYTES
from tests.api.engine_requests import ENGINE, KEY, RECORDING, client, code, send
from tests.live import ADA
from tests.wire_server import END, HANG, LAST_CHUNK, WireServer, chunk, reply, stream_head

SOUND = bytes(range(256)) * 1000
ETAG = '"v1"'


def recording(body: bytes = SOUND, content_type: str = "audio/mpeg", **headers: str) -> list[bytes]:
    return [reply(body, content_type=content_type, **headers)]


def get_audio(url: str, engine: WireServer, method: str = "GET", **headers: str):
    all_headers = ADA | {name.replace("_", "-"): value for name, value in headers.items()}
    return client(engine.url).open(f"/api/audio?url={quote(url, safe='')}", method=method, headers=all_headers)


def download(*steps, **headers: str):
    """The response to the browser, and the request that the engine got."""
    with WireServer(list(steps) or recording()) as engine:
        response = get_audio(engine.url + RECORDING, engine, **headers)
        response.get_data()
        assert engine.wait_for(lambda: len(engine.requests) == 1)
        return response, engine.requests[0]


def test_a_recording_is_sent_whole_with_its_length():
    response, request = download()

    assert response.status_code == 200
    assert response.data == SOUND
    assert response.headers["Content-Length"] == str(len(SOUND))
    assert response.headers["Content-Type"] == "audio/mpeg"
    assert response.headers["Accept-Ranges"] == "bytes"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Content-Disposition"] == 'inline; filename="1.mp3"'
    assert request.path == RECORDING
    assert request.headers["authorization"] == f"Bearer {KEY}"


UNSIZED = {
    "chunked": [stream_head("audio/mpeg"), *[chunk(SOUND[at : at + 5000]) for at in range(0, len(SOUND), 5000)], LAST_CHUNK],
    "until the end": [stream_head("audio/mpeg", chunked=False, Connection="close"), SOUND, END],
    "a length that does not count": [
        stream_head("audio/mpeg", Content_Length="3"),
        *[chunk(SOUND[at : at + 5000]) for at in range(0, len(SOUND), 5000)],
        LAST_CHUNK,
    ],
    "a length that is none": [stream_head("audio/mpeg", chunked=False, Content_Length="many"), SOUND, END],
}


@pytest.mark.parametrize("steps", UNSIZED.values(), ids=UNSIZED)
def test_a_recording_without_a_content_length_gets_one(steps):
    whole, _ = download(*steps)
    part, _ = download(*steps, Range="bytes=1000-99999")

    assert (whole.status_code, whole.headers["Content-Length"], whole.data) == (200, str(len(SOUND)), SOUND)
    assert (part.status_code, part.headers["Content-Range"]) == (206, f"bytes 1000-99999/{len(SOUND)}")
    assert part.data == SOUND[1000:100_000]


@pytest.mark.parametrize(
    ("range_header", "start", "stop"),
    [
        ("bytes=0-", 0, 256_000),
        ("bytes=0-1", 0, 2),
        ("bytes=100000-100009", 100_000, 100_010),
        ("bytes=255999-", 255_999, 256_000),
        ("bytes=255990-999999", 255_990, 256_000),
        ("bytes=-10", 255_990, 256_000),
    ],
)
def test_ranges_are_served_without_asking_the_engine_for_one(range_header, start, stop):
    response, request = download(Range=range_header)

    assert response.status_code == 206
    assert response.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(SOUND)}"
    assert response.headers["Content-Length"] == str(stop - start)
    assert response.data == SOUND[start:stop]
    assert "range" not in request.headers


@pytest.mark.parametrize("range_header", ["bytes=256000-", "bytes=999999-", "bytes=-0"])
def test_a_range_beyond_the_end_is_refused_with_the_size(range_header):
    with WireServer([*recording()[:1], HANG]) as engine:
        response = get_audio(engine.url + RECORDING, engine, Range=range_header)

        assert code(response) == (416, "range_not_satisfiable")
        assert response.headers["Content-Range"] == f"bytes */{len(SOUND)}"
        assert engine.wait_for(lambda: engine.open_connections == 0, 15)


@pytest.mark.parametrize("range_header", ["bytes=5-3", "bytes=0-1,5-6", "seconds=0-1", "x"])
def test_an_invalid_range_is_ignored(range_header):
    response, _ = download(Range=range_header)

    assert (response.status_code, len(response.data)) == (200, len(SOUND))
    assert "Content-Range" not in response.headers


@pytest.mark.parametrize(
    ("etag", "if_range", "status"),
    [
        (ETAG, ETAG, 206),
        (ETAG, '"v0"', 200),
        ('W/"v1"', 'W/"v1"', 200),
        ("", "Wed, 21 Oct 2026 07:28:00 GMT", 200),
    ],
)
def test_if_range_needs_a_strong_match(etag, if_range, status):
    response, _ = download(*recording(**({"ETag": etag} if etag else {})), Range="bytes=0-1", If_Range=if_range)

    assert response.status_code == status


@pytest.mark.parametrize("if_none_match", [ETAG, f'W/{ETAG}, "x"', f'"x", {ETAG}', "*"])
def test_a_matching_etag_gets_304(if_none_match):
    with WireServer([*recording(ETag=ETAG), HANG]) as engine:
        response = get_audio(engine.url + RECORDING, engine, If_None_Match=if_none_match, Range="bytes=0-1")

        assert (response.status_code, response.data) == (304, b"")
        assert response.headers["ETag"] == ETAG
        assert engine.wait_for(lambda: engine.open_connections == 0, 15)


@pytest.mark.parametrize(("etag", "if_none_match"), [(ETAG, '"v0"'), ("", "*"), ("", '""'), ("unquoted", "unquoted")])
def test_an_etag_that_does_not_match_gets_the_recording(etag, if_none_match):
    response, _ = download(*recording(**({"ETag": etag} if etag else {})), If_None_Match=if_none_match)

    assert (response.status_code, response.data) == (200, SOUND)
    assert response.headers.get("ETag", "") == (ETAG if etag == ETAG else "")


def test_head_sends_headers_only_and_closes_the_engines_response():
    with WireServer([*recording(ETag=ETAG), HANG]) as engine:
        response = get_audio(engine.url + RECORDING, engine, "HEAD")

        assert (response.status_code, response.data) == (200, b"")
        assert response.headers["Content-Length"] == str(len(SOUND))
        response.close()  # As servers do; the test client does not if nothing was iterated.
        assert engine.wait_for(lambda: engine.open_connections == 0, 15)


@pytest.mark.parametrize("sent", ["text/html", "application/javascript", "image/svg+xml", "audio/x y", "", "multipart/mixed"])
def test_other_content_types_become_octet_stream(sent):
    response, _ = download(*recording(content_type=sent))

    assert response.headers["Content-Type"] == "application/octet-stream"


def test_parameters_of_the_content_type_are_dropped():
    response, _ = download(*recording(content_type="Audio/Ogg; codecs=opus"))

    assert response.headers["Content-Type"] == "audio/ogg"


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ("public, max-age=60", "private, max-age=60, no-transform"),
        ("max-age=60, no-store", "private, no-cache, no-transform"),
        ("max-age=60, no-cache", "private, no-cache, no-transform"),
        ("No-Cache, Max-Age=60", "private, no-cache, no-transform"),
        ("no-cache", "private, no-cache, no-transform"),
        ("max-age=x", "private, no-cache, no-transform"),
        ("", "private, no-cache, no-transform"),
    ],
)
def test_recordings_are_cached_privately(sent, expected):
    response, _ = download(*recording(**({"Cache_Control": sent} if sent else {})))

    assert response.headers["Cache-Control"] == expected


def test_other_headers_of_the_engine_are_dropped():
    response, _ = download(*recording(Set_Cookie="a=b", X_Engine="secret", Content_Disposition="attachment; filename=x.exe"))

    assert not {"Set-Cookie", "X-Engine"} & set(response.headers.keys())
    assert response.headers["Content-Disposition"] == 'inline; filename="1.mp3"'


def test_the_filename_is_sanitized():
    path = "/api/v1/voice-submissions/k/default/ada/" + quote('a"; x=é 漢.mp3', safe="")

    with WireServer(recording()) as engine:
        response = get_audio(engine.url + path, engine)

        assert response.data == SOUND
        assert response.headers["Content-Disposition"] == 'inline; filename="a_x_.mp3"'
        assert engine.requests[0].path == path


@pytest.mark.parametrize("body", [b"", b"x"])
def test_a_tiny_recording_is_served(body):
    response, _ = download(*recording(body))

    assert (response.status_code, response.headers["Content-Length"], response.data) == (200, str(len(body)), body)


LARGE = AUDIO_MAX_BYTES + 1
TOO_LARGE = {
    "by its length": [stream_head("audio/mpeg", chunked=False, Content_Length=str(LARGE)), HANG],
    "by its bytes": [stream_head("audio/mpeg"), *[chunk(b"x" * 2**20)] * 26, LAST_CHUNK],
    "by far": [stream_head("audio/mpeg", chunked=False, Content_Length="9" * 15), HANG],
}


@pytest.mark.parametrize("steps", TOO_LARGE.values(), ids=TOO_LARGE)
def test_a_recording_that_is_too_large_is_an_error(steps):
    with WireServer(steps) as engine:
        assert code(get_audio(engine.url + RECORDING, engine)) == (502, "upstream_error")

        assert engine.wait_for(lambda: engine.open_connections == 0, 15)


def test_a_recording_of_unknown_length_that_stalls_times_out():
    with WireServer([stream_head("audio/mpeg"), chunk(b"x"), HANG]) as engine:
        response = send(client(engine.url, ENGINE_SECONDS="0.3"), "audio")

        assert code(response) == (504, "upstream_timeout")
        assert engine.wait_for(lambda: engine.open_connections == 0, 15)


def test_a_compressed_recording_is_an_error():
    response, _ = download(*recording(Content_Encoding="gzip"))

    assert code(response) == (502, "upstream_error")


def test_a_truncated_recording_is_shorter_than_its_content_length():
    response, _ = download(stream_head("audio/mpeg", chunked=False, Content_Length=str(len(SOUND))), SOUND[:9000], END)

    assert response.headers["Content-Length"] == str(len(SOUND))
    assert response.data == SOUND[:9000]


# URLs


@pytest.mark.parametrize(
    "url",
    [
        "",
        RECORDING,
        "http://localhost:1" + RECORDING,
        "http://engine.test.evil.example" + RECORDING,
        "HTTP://engine.test" + RECORDING,
        "http://engine.test@evil.example" + RECORDING,
        "http://[::1]" + RECORDING,
        f"{ENGINE}/api/v1/chat",
        f"{ENGINE}/api/v1/audio/../chat",
        f"{ENGINE}/api/v1/audio/replies/default/ada/..%2f..%2feve%2f1.mp3",
    ],
)
@responses.activate
def test_a_url_that_is_no_recording_is_refused_without_a_request(url):
    response = client().get(f"/api/audio?url={quote(url, safe='')}", headers=ADA)

    assert code(response) == (400, "invalid_request")
    assert not responses.calls


@pytest.mark.parametrize("owner", ["default/eve", "other/ada"])
@responses.activate
def test_another_users_recording_is_not_found_without_a_request(owner):
    url = f"{ENGINE}/api/v1/audio/replies/{owner}/1.mp3"

    assert code(client().get(f"/api/audio?url={quote(url, safe='')}", headers=ADA)) == (404, "not_found")
    assert not responses.calls
