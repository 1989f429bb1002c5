"""HEAD and OPTIONS."""

from typing import Final

from bff.api.cli.conformance.model import check
from bff.api.cli.conformance.outcomes import expect
from bff.api.cli.conformance.target import CHAT, Target

PROMPTLY: Final = 5.0
ORIGIN: Final = "https://conformance.invalid"


@check(
    "http.head",
    "HEAD has the status and headers of GET, no body, and ends at once",
    rule="RFC 9110, 9.3.2",
    meaning="Link checkers and proxies hang on a stream, or take its bytes for the next response.",
)
def head(target: Target) -> str | None:
    path = f"{CHAT}/{target.sample().message_id}"
    with target.sample_user.request("HEAD", path, seconds=PROMPTLY) as response:
        expect(response.status == 200, f"the status is {response.status}")
        found = response.header("content-type")
        expect(found.startswith("text/event-stream"), f"Content-Type is {found or 'missing'}")
        expect(response.is_silent(target.deadline(PROMPTLY)), "a body follows, or the connection stays open")
    return None


@check(
    "http.options",
    "OPTIONS names the methods",
    rule="RFC 9110, 9.3.7",
    meaning="Tools and gateways that ask what a route allows get an error.",
)
def options(target: Target) -> str | None:
    with target.user().request("OPTIONS", CHAT, seconds=PROMPTLY) as response:
        expect(response.status in {200, 204}, f"the status is {response.status}")
        allowed = response.header("allow")
    expect("POST" in allowed, f"Allow is {allowed or 'missing'}")
    return None


@check(
    "http.cors",
    "No page of an unknown origin may read responses",
    rule="docs/configuration.md#authentication; Fetch, 3.3",
    meaning="Any page that a user visits can read the user's conversations.",
)
def cors(target: Target) -> str | None:
    user = target.user()
    preflight = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    for method, headers in (("OPTIONS", preflight), ("GET", {"Origin": ORIGIN})):
        with user.request(method, f"{CHAT}/unknown", headers=headers, seconds=PROMPTLY) as response:
            allowed = response.header("access-control-allow-origin")
        expect(not allowed, f"{method} from {ORIGIN} is answered with Access-Control-Allow-Origin: {allowed}")
    return None
