import json
import traceback
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bff.errors import InvalidRequest, TooLarge
from bff.upstream.messages import AUDIO_FORMATS, AUDIO_MAX_BYTES, parse

OGG = {"message": "", "message_type": "audio", "audio_base64": b64encode(b"OggS").decode(), "audio_format": "ogg"}
MIB = 1024 * 1024
JSON = "The body is not valid JSON."
BLANK = "message must not be blank."
ID = "client_message_id: must be 1 to 128 printable characters."
AUDIO = "audio_base64: must be base64."


def body(**content) -> bytes:
    return json.dumps(content).encode()


def error_of(content: bytes, key: str | None = None) -> str:
    with pytest.raises(InvalidRequest) as rejected:
        parse(content, key)
    return str(rejected.value)


def test_a_text_is_not_changed():
    request = parse(body(message="  Ἐν ἀρχῇ\n\u2028 "))

    assert request.for_upstream() == {"message": "  Ἐν ἀρχῇ\n\u2028 ", "message_type": "text"}
    assert (request.client_message_id, request.on_busy) == (None, None)


@pytest.mark.parametrize("audio_format", [*AUDIO_FORMATS, *(f"audio/{name}" for name in AUDIO_FORMATS)])
def test_an_audio_message_needs_no_text(audio_format):
    spoken = OGG | {"audio_format": audio_format}

    assert parse(body(**spoken)).for_upstream() == spoken | {"audio_format": audio_format.removeprefix("audio/")}


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", JSON),
        (b"hello", JSON),
        (b'{"message": "cut', JSON),
        (b'{"message": "a"} {"message": "b"}', JSON),
        (b"{'message': 'a'}", JSON),
        (b'{"message": "a",}', JSON),
        (b'{"message": "\xff\xfe"}', JSON),
        (b'{"message": "\xed\xa0\x80"}', JSON),
        ('{"message": "a"}'.encode("utf-16"), JSON),
        (rb'{"message": "\ud800"}', JSON),
        (rb'{"message": "a \udc00\ud800 b"}', JSON),
        (b'{"message": "a\x00b"}', JSON),
        (b'{"message": "a\nb"}', JSON),
        (b'{"message": ' + b"[" * 60_000, JSON),
        (b'{"message": "a", "more": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", JSON),
        (b'{"message": "a", "more": ' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"}", JSON),
        (rb'{"message": "a\u0000b"}', "message must not contain NUL characters."),
    ],
    ids=lambda value: repr(value[:24]) if isinstance(value, bytes) else "",
)
def test_invalid_json_is_rejected(content, error):
    assert error_of(content) == error


@pytest.mark.parametrize("content", [b"null", b"[]", b'"hello"', b"5", b"true", b'["message"]'])
def test_json_that_is_not_an_object_is_rejected(content):
    assert error_of(content) == "Input should be an object."


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ({}, "message: Field required."),
        ({"Message": "a"}, "message: Field required."),
        ({"message": None}, "message: Input should be a valid string."),
        ({"message": 5}, "message: Input should be a valid string."),
        ({"message": ["a"]}, "message: Input should be a valid string."),
        ({"message": {"text": "a"}}, "message: Input should be a valid string."),
        ({"message": ""}, BLANK),
        ({"message": " \t\r\n"}, BLANK),
        ({"message": "\u2003\u2028\u00a0\u3000"}, BLANK),
        ({"message": "a", "message_type": "video"}, "message_type: Input should be 'text' or 'audio'."),
        ({"message": "a", "message_type": "TEXT"}, "message_type: Input should be 'text' or 'audio'."),
        ({"message": "a", "message_type": None}, "message_type: Input should be 'text' or 'audio'."),
        ({"message": "a", "on_busy": "wait"}, "on_busy: Input should be 'enqueue', 'reject' or 'interrupt'."),
        ({"message": "a", "on_busy": True}, "on_busy: Input should be 'enqueue', 'reject' or 'interrupt'."),
        ({"message": "a", "client_message_id": ""}, ID),
        ({"message": "a", "client_message_id": 7}, "client_message_id: Input should be a valid string."),
        ({"message": "a", "client_message_id": "x" * 129}, ID),
        ({"message": "a", "client_message_id": " x"}, ID),
        ({"message": "a", "client_message_id": "x "}, ID),
        ({"message": "a", "client_message_id": "x\n"}, ID),
        ({"message": "a", "client_message_id": "x\0y"}, ID),
        ({"message": "a", "client_message_id": "é"}, ID),
    ],
    ids=repr,
)
def test_an_invalid_message_is_rejected_with_the_reason(content, error):
    assert error_of(body(**content)) == error


MEDIA_TYPES = {
    "OGG": "ogg",
    "audio/ogg; codecs=opus": "ogg",
    "Audio/MPEG": "mp3",
    "audio/mp3": "mp3",
    "audio/mp4": "m4a",
    "audio/mp4;codecs=mp4a.40.2": "m4a",
    "audio/x-m4a": "m4a",
    "audio/x-wav": "wav",
    "audio/wave": "wav",
    "audio/vnd.wave": "wav",
    "audio/webm;codecs=opus": "webm",
    "audio/webm ; codecs=opus": "webm",
    "AUDIO/WEBM;CODECS=OPUS": "webm",
    "audio/x-flac": "flac",
}


@pytest.mark.parametrize("text", [*MEDIA_TYPES, *AUDIO_FORMATS])
def test_upstreams_get_the_bare_audio_format(text):
    message = parse(json.dumps(OGG | {"audio_format": text}).encode())

    assert message.for_upstream()["audio_format"] == MEDIA_TYPES.get(text, text)


MISSING = "audio_base64 and audio_format are required for audio."
FORMAT = "audio_format must be one of ogg, mp3, wav, webm, flac, m4a."


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"audio_base64": None}, MISSING),
        ({"audio_base64": ""}, MISSING),
        ({"audio_format": None}, MISSING),
        ({"audio_format": ""}, MISSING),
        ({"audio_base64": 5}, "audio_base64: Input should be a valid string."),
        ({"audio_format": ["ogg"]}, "audio_format: Input should be a valid string."),
        ({"message": None}, "message: Input should be a valid string."),
        ({"message": "\0"}, "message must not contain NUL characters."),
        ({"audio_format": "exe"}, FORMAT),
        ({"audio_format": ";ogg"}, FORMAT),
        ({"audio_format": "audio/basic"}, FORMAT),
        ({"audio_format": "audio/"}, FORMAT),
        ({"audio_format": "audio/audio/ogg"}, FORMAT),
        ({"audio_format": "video/ogg"}, FORMAT),
        ({"audio_format": "ogg\n"}, FORMAT),
        ({"audio_base64": "!!!!"}, AUDIO),
        ({"audio_base64": "T2dnUw"}, AUDIO),
        ({"audio_base64": "T2dnUw="}, AUDIO),
        ({"audio_base64": "T2dnUw==="}, AUDIO),
        ({"audio_base64": "T2dnUw==\n"}, AUDIO),
        ({"audio_base64": "T2dn Uw=="}, AUDIO),
        ({"audio_base64": "===="}, AUDIO),
        ({"audio_base64": "T2dnUw==T2dnUw=="}, AUDIO),
        ({"audio_base64": "_-_-"}, AUDIO),
        ({"audio_base64": "Ťžďŕ"}, AUDIO),
        ({"audio_base64": "data:audio/ogg;base64,T2dnUw=="}, AUDIO),
        ({"audio_base64": "A" * (MIB - 2) + "==" + "AAAA"}, AUDIO),
        ({"audio_base64": "A" * (MIB - 1) + "=" + "A" * MIB}, AUDIO),
        ({"audio_base64": "A" * (MIB + 1)}, AUDIO),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_an_invalid_audio_message_is_rejected_with_the_reason(change, error):
    assert error_of(body(**OGG | change)) == error


def test_audio_over_the_limit_is_rejected():
    def spoken(size: int) -> bytes:
        return body(**OGG | {"audio_base64": b64encode(bytes(size)).decode()})

    assert parse(spoken(AUDIO_MAX_BYTES)).audio_base64

    for size in (AUDIO_MAX_BYTES + 1, AUDIO_MAX_BYTES + MIB):
        with pytest.raises(TooLarge, match=r"^The audio is larger than 25 MB\.$"):
            parse(spoken(size))


def test_audio_of_a_text_message_is_ignored():
    assert parse(body(**OGG | {"message": "a", "message_type": "text"})).for_upstream() == {
        "message": "a",
        "message_type": "text",
    }


@pytest.mark.parametrize("key", ["user_id", "org", "org_id", "client_id", "on_disconnect", "callback_url", "anything"])
@pytest.mark.parametrize("value", ["mallory", 5, None, {"deep": [1]}], ids=repr)
def test_unknown_keys_are_ignored(key, value):
    assert parse(body(message="a", **{key: value})) == parse(body(message="a"))


@pytest.mark.parametrize("client_message_id", ["x", "x" * 128, "a b", "~!", "0193c1d2-7c1e-7d5a-b1f3-1c2d3e4f5a6b"])
def test_a_client_message_id_is_accepted(client_message_id):
    assert parse(body(message="a", client_message_id=client_message_id)).client_message_id == client_message_id
    assert parse(body(message="a"), client_message_id).client_message_id == client_message_id


def test_the_idempotency_key_overrides_the_bodys_id():
    request = parse(body(message="a", client_message_id="body", on_busy="reject"), "header")

    assert request.client_message_id == "header"
    assert (request.message, request.on_busy) == ("a", "reject")


@pytest.mark.parametrize("key", ["", " ", "x" * 129, "x\n", "\udcff", "é"])
def test_an_invalid_idempotency_key_is_rejected(key):
    assert error_of(body(message="a", client_message_id="good"), key) == ID


def test_a_parsed_message_is_immutable():
    request = parse(body(message="a"))

    with pytest.raises(ValidationError):
        request.message = "b"


def test_audio_is_not_in_the_repr():
    assert "T2dnUw" not in repr(parse(body(**OGG)))


SECRET = "Sésame42"
hidden = st.sampled_from([SECRET, f" {SECRET}\0", [SECRET], {SECRET: SECRET}, {"x": [SECRET]}]) | st.integers() | st.none()
anything = st.dictionaries(
    st.sampled_from(["message", "message_type", "audio_base64", "audio_format", "client_message_id", "on_busy", SECRET]),
    hidden | st.sampled_from(["text", "audio", "ogg", "T2dn", ""]),
)


def rejected_with(content: bytes, key: str | None) -> str:
    """Everything that a log may show of the error, "" if there was none."""
    try:
        parse(content, key)
    except InvalidRequest as problem:
        return "".join(traceback.format_exception_only(problem)) + problem.detail + repr(problem.__cause__)
    return ""


@given(anything, st.sampled_from([None, SECRET, "good"]))
def test_no_error_repeats_the_users_input(content, key):
    data = json.dumps(content, ensure_ascii=False).encode()

    for attempt in (data, data[:-1], b"[" + data + b"]"):
        assert SECRET not in rejected_with(attempt, key)


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: f'{{"message":"{text}"}}'.encode("utf-8", "replace")))
def test_any_bytes_are_a_message_or_rejected(content):
    try:
        message = parse(content).message
    except InvalidRequest:
        return

    assert message.encode().strip()
