"""Refusals: their status, their shape, and that nonsense changes nothing."""

from typing import Any, Final

from bff.api.cli.conformance.client import Request, Response, send
from bff.api.cli.conformance.model import check
from bff.api.cli.conformance.outcomes import Failed, Skipped, expect
from bff.api.cli.conformance.target import ACTIVE, CHAT, JSON, Target, User

ERRORS: Final = "docs/protocol.md#errors"
UNKNOWN_MESSAGE: Final = "00000000-0000-4000-8000-000000000000"
HUGE_BYTES: Final = 10 * 1024**3
"""A declared length over any limit; the body is not sent."""
NONSENSE: Final = {
    "broken JSON": b'{"message": ',
    "NaN": b'{"message": "hello", "more": NaN}',
    "an array": b'["message"]',
    "no message": b"{}",
    "a blank message": b'{"message": " \\n "}',
    "a number as message": b'{"message": 7}',
    "null as message": b'{"message": null}',
    "invalid UTF-8": b'{"message": "\xff\xfe"}',
    "half a surrogate pair": b'{"message": "\\ud800"}',
    "an unknown on_busy": b'{"message": "hello", "on_busy": "explode"}',
    "an empty client_message_id": b'{"message": "hello", "client_message_id": ""}',
    "a client_message_id of 129 characters": b'{"message": "hello", "client_message_id": "%s"}' % (b"x" * 129),
    "audio without its data": b'{"message": "", "message_type": "audio"}',
    "audio that is not Base64": b'{"message": "", "message_type": "audio", "audio_base64": "?", "audio_format": "ogg"}',
}
NONSENSE_KEYS: Final = {"an empty Idempotency-Key": "", "an Idempotency-Key of 129 characters": "x" * 129}
SHAPE: Final = "A client cannot show what is wrong, or shows a proxy's or framework's page instead of a sentence."


def expect_error(target: Target, response: Response, status: int, code: str) -> dict[str, Any]:
    """Checks status and shape of a refusal. Raises Failed."""
    expect(response.status == status, f"the status is {response.status}, not {status}")
    kind = response.header("content-type").partition(";")[0].strip()
    expect(kind == "application/json", f"the {status} has Content-Type: {kind or '(none)'}")
    content = response.read_json(target.deadline())
    expect(isinstance(content, dict), f"the {status} is no JSON object")
    expect(content.get("code") == code, f"the {status} has the code {content.get('code')!r}, not {code!r}")
    expect(isinstance(content.get("error"), str) and content["error"], f"the {status} has no sentence in `error`")
    same = content.get("request_id") and content["request_id"] == response.header("x-request-id")
    expect(same, f"request_id is {content.get('request_id')!r}, X-Request-ID {response.header('x-request-id')!r}")
    return dict(content)


@check("errors.not-found", "Unknown paths and messages are 404", rule=ERRORS, meaning=SHAPE)
def not_found(target: Target) -> str | None:
    user = target.user()
    for path in ("/api/no-such-path", f"{CHAT}/{UNKNOWN_MESSAGE}"):
        with user.request("GET", path) as response:
            expect_error(target, response, 404, "not_found")
    with user.stop(UNKNOWN_MESSAGE) as response:
        expect_error(target, response, 404, "not_found")
    return None


@check("errors.method", "Another method is 405, with Allow", rule=f"{ERRORS}; RFC 9110, 15.5.6", meaning=SHAPE)
def method(target: Target) -> str | None:
    with target.user().request("DELETE", CHAT) as response:
        expect_error(target, response, 405, "method_not_allowed")
        allowed = response.header("allow")
    expect("POST" in allowed, f"Allow is {allowed or 'missing'}")
    return None


@check(
    "errors.media-type",
    "A body that is not JSON, or is compressed, is 415",
    rule=ERRORS,
    meaning="Forms of other sites can send messages in a user's name; a small compressed body fills the memory.",
)
def media_type(target: Target) -> str | None:
    user, body = target.user(), b'{"message": "hello"}'
    for headers in (
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/xml"},
        {**JSON, "Content-Encoding": "gzip"},
    ):
        with user.request("POST", CHAT, body, headers) as response:
            expect_error(target, response, 415, "unsupported_media_type")
    return None


@check("errors.length", "A body without a length is 411", rule=ERRORS, meaning=SHAPE)
def length(target: Target) -> str | None:
    with target.user().request("POST", CHAT, headers=JSON) as response:
        expect_error(target, response, 411, "length_required")
    return None


@check(
    "errors.too-large",
    "A body that is too large is 413 at once",
    rule=ERRORS,
    meaning="One request can fill the server's memory.",
)
def too_large(target: Target) -> str | None:
    headers = {**JSON, "Content-Length": str(HUGE_BYTES)}
    with target.user().request("POST", CHAT, b'{"message": "', headers) as response:
        expect_error(target, response, 413, "too_large")
    return None


@check(
    "errors.invalid",
    "Nonsense is 400, and nothing is enqueued",
    rule=ERRORS,
    meaning="A client's bug becomes a server's error (500), or a message that nobody wrote.",
)
def invalid(target: Target) -> str | None:
    user = target.user()
    for name, body in NONSENSE.items():
        _expect_invalid(target, user, name, body, JSON)
    for name, key in NONSENSE_KEYS.items():
        _expect_invalid(target, user, name, b'{"message": "hello"}', {**JSON, "Idempotency-Key": key})
    if target.has_distinct_users:
        messages = user.json("GET", ACTIVE).get("messages")
        expect(messages == [], f"a message is active all the same: {messages}")
    return f"{len(NONSENSE) + len(NONSENSE_KEYS)} requests"


def _expect_invalid(target: Target, user: User, name: str, body: bytes, headers: dict[str, str]) -> None:
    with user.request("POST", CHAT, body, headers) as response:
        try:
            expect_error(target, response, 400, "invalid_request")
        except Failed as error:
            raise Failed(f"{name}: {error}") from None


@check(
    "errors.unauthorized",
    "A request without credentials is 401",
    rule=ERRORS,
    meaning="Anybody can use the server and pay with its keys.",
)
def unauthorized(target: Target) -> str | None:
    if not target.options.headers:
        raise Skipped("no credentials were given, so none are needed")
    with send(target.address, Request("GET", ACTIVE, {}), target.deadline()) as response:
        if response.status == 200 and response.header("set-cookie"):
            raise Skipped("the server identifies anonymous users by a cookie")
        if response.status == 403:
            expect_error(target, response, 403, "forbidden")
        else:
            expect_error(target, response, 401, "unauthorized")
    return None


@check(
    "errors.foreign",
    "Another user's message cannot be read or stopped: 404",
    rule=ERRORS,
    meaning="Whoever learns a message id reads another user's reply.",
)
def foreign(target: Target) -> str | None:
    other, message_id = target.other_user(), target.sample().message_id
    with other.request("GET", f"{CHAT}/{message_id}") as response:
        expect_error(target, response, 404, "not_found")
    with other.stop(message_id) as response:
        expect_error(target, response, 404, "not_found")
    return None


@check(
    "errors.cross-site",
    "A request that a browser sends for another site's page is 403",
    rule=ERRORS,
    meaning="A page that a user visits can send messages in the user's name.",
)
def cross_site(target: Target) -> str | None:
    headers = {**JSON, "Origin": "https://conformance.invalid", "Sec-Fetch-Site": "cross-site"}
    with target.user().request("POST", CHAT, b'{"message": " "}', headers) as response:
        if response.status == 400 and _is_bearer(target):
            raise Skipped("browsers do not add an Authorization header by themselves, so it may pass")
        expect_error(target, response, 403, "forbidden")
    return None


def _is_bearer(target: Target) -> bool:
    return any(name.lower() == "authorization" for name, _ in target.options.headers)
