"""The server that is judged, its users, and what checks share: requests, streams and one sample reply."""

import json
import secrets
from collections.abc import Mapping
from functools import cached_property
from http.cookies import CookieError, SimpleCookie
from itertools import count
from threading import Lock
from time import monotonic, sleep
from typing import Any, Final, NamedTuple

from bff.api.cli.conformance.client import Address, ClientError, Request, Response, send
from bff.api.cli.conformance.outcomes import Failed, Skipped
from bff.api.cli.conformance.sse import EventStream

CHAT: Final = "/api/chat/stream"
ACTIVE: Final = "/api/chat/active"
USER_PLACEHOLDER: Final = "{user}"
JSON: Final = {"Content-Type": "application/json"}
TEXT: Final = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
SLOW_MESSAGE: Final = f"/slow 1.5 {TEXT}"
"""Understood by the bundled engine."""


class Options(NamedTuple):
    headers: tuple[tuple[str, str], ...] = ()
    """Sent with each request. `{user}` in a value is replaced by a user's name."""
    slow_message: str = SLOW_MESSAGE
    timeout: float = 30.0
    """Seconds, for one response or one reply."""
    heartbeat: float = 15.0
    """The longest silence on a stream, in seconds."""


class Unusable(Exception):
    """The server cannot be judged: it is unreachable, or refuses the credentials."""


class User:
    """One user's client: the operator's headers, and the cookies that the server has set."""

    def __init__(self, target: "Target", name: str) -> None:
        self._target = target
        self.headers = {key: value.replace(USER_PLACEHOLDER, name) for key, value in target.options.headers}
        self._cookies: dict[str, str] = {}
        self._lock = Lock()

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        seconds: float | None = None,
        receive_buffer: int = 0,
    ) -> Response:
        """`seconds`: until the response's head, by default the timeout. Raises ClientError."""
        fields = {**self.headers, **self._cookie_header(), **(headers or {})}
        deadline = monotonic() + (seconds or self._target.options.timeout)
        response = send(self._target.address, Request(method, path, fields, body, receive_buffer), deadline)
        self._store_cookies(response)
        return response

    def _cookie_header(self) -> dict[str, str]:
        with self._lock:
            cookies = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        return {"Cookie": cookies} if cookies else {}

    def _store_cookies(self, response: Response) -> None:
        with self._lock:
            for name, value in response.headers:
                if name == "set-cookie":
                    self._cookies |= _parse_cookie(value)

    @property
    def has_cookie(self) -> bool:
        return bool(self._cookies)

    def identify(self) -> "User":
        """Gets a cookie, where users are identified by one, so that concurrent requests are one user's."""
        self.request("GET", ACTIVE).close()
        return self

    def json(self, method: str, path: str, content: Any = None) -> Any:
        """The JSON of a response. Raises ClientError, Failed for another status than 2xx."""
        body = None if content is None else json.dumps(content).encode()
        with self.request(method, path, body, JSON) as response:
            if response.status >= 300:
                raise Failed(f"{method} {path} was answered with {response.status}")
            return response.read_json(self._target.deadline())

    def send(self, message: str, headers: Mapping[str, str] | None = None, **fields: Any) -> EventStream:
        """Sends a message; waits once if the server asks for that. Raises ClientError, Failed if no stream is opened."""
        body = json.dumps({"message": message, **fields}).encode()
        return self._stream("POST", CHAT, body, {**JSON, **(headers or {})})

    def follow(self, message_id: str, after: str = "", query: str = "") -> EventStream:
        """Follows a reply from its start, or after an event. Raises ClientError, Failed if no stream is opened."""
        if not message_id:
            raise Failed("the reply has no X-Message-ID, so it cannot be followed: see headers.message-id")
        resume = {"Last-Event-ID": after} if after else {}
        return self._stream("GET", f"{CHAT}/{message_id}{query}", None, resume)

    def stop(self, message_id: str) -> Response:
        """Raises ClientError, Failed if there is no message id."""
        if not message_id:
            raise Failed("the reply has no X-Message-ID, so it cannot be stopped: see headers.message-id")
        return self.request("POST", f"{CHAT}/{message_id}/stop")

    def _stream(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> EventStream:
        started_at = monotonic()
        response = self.request(method, path, body, headers)
        if response.status == 429:
            response.close()
            self._target.wait(response)
            started_at = monotonic()
            response = self.request(method, path, body, headers)
        if response.status != 200:
            response.close()
            raise Failed(f"{method} {_shown(path)} was answered with {response.status} instead of a stream")
        return EventStream(response, started_at)


class Target:
    def __init__(self, url: str, options: Options) -> None:
        """Raises ValueError for an invalid URL."""
        self.url = url
        self.address = Address.parse(url)
        self.options = options
        self._numbers = count(1)
        self._run = secrets.token_hex(4)
        """Makes users and idempotency keys differ from those of other runs."""
        self._sample: EventStream | Failed | None = None
        self._sample_lock = Lock()

    def deadline(self, seconds: float | None = None) -> float:
        """A moment for one wait, by default after the timeout."""
        return monotonic() + (seconds or self.options.timeout)

    def wait(self, response: Response) -> None:
        """As long as a refusal's Retry-After says, at most the timeout."""
        seconds = response.header("retry-after")
        sleep(min(self.options.timeout, float(seconds) if seconds.isdecimal() else 1.0))

    @cached_property
    def has_distinct_users(self) -> bool:
        """Whether checks can act as different users, and so run at the same time. Raises ClientError."""
        if any(USER_PLACEHOLDER in value for _, value in self.options.headers):
            return True
        one, other = User(self, "one").identify(), User(self, "other").identify()
        return one.has_cookie and self._is_hidden(one, other)

    def _is_hidden(self, one: User, other: User) -> bool:
        """Whether one user's message is unknown to the other: a load balancer sets cookies, too."""
        try:
            with one.send("hello") as stream, other.request("GET", f"{CHAT}/{stream.message_id}") as response:
                return response.status == 404
        except Failed:
            return False

    @cached_property
    def _only_user(self) -> User:
        return User(self, "only").identify()

    def user(self) -> User:
        """A user that no other check has; the only one, if the credentials are those of one user."""
        if not self.has_distinct_users:
            return self._only_user
        return User(self, f"conformance-{self._run}-{next(self._numbers)}").identify()

    def other_user(self) -> User:
        """A second user of a check. Raises Skipped if there is none."""
        if not self.has_distinct_users:
            raise Skipped("needs two users: give a header with {user} in it")
        return self.user()

    def key(self) -> str:
        """A new idempotency key."""
        return f"conformance-{self._run}-{next(self._numbers)}"

    @cached_property
    def sample_user(self) -> User:
        return self.user()

    def sample(self) -> EventStream:
        """A slow reply that was read to its end. Raises Skipped if there is none, after one check has failed for that."""
        with self._sample_lock:
            if self._sample is None:
                self._sample = self._read_sample()
        if isinstance(self._sample, Failed):
            raise Skipped(f"needs a reply, see stream.opens: {self._sample}")
        return self._sample

    def sample_problem(self) -> str:
        """Why there is no sample; "" if there is one."""
        try:
            self.sample()
        except Skipped:
            return str(self._sample)
        return ""

    def _read_sample(self) -> EventStream | Failed:
        try:
            with self.sample_user.send(self.options.slow_message) as stream:
                stream.read_all(self.deadline())
        except (ClientError, Failed) as error:
            return Failed(str(error))
        return stream if stream.logged else Failed("the stream has no events")

    def repeats_messages(self) -> bool:
        """Whether the agent is an echo, so that a reply's text is known."""
        return self.sample().text in {self.options.slow_message, echoed(self.options.slow_message)}

    def prepare(self) -> None:
        """Finds out how users differ, before checks run in threads. Raises Unusable."""
        self._probe()
        try:
            self.sample_user.identify()
        except ClientError as error:
            raise Unusable(str(error)) from error

    def _probe(self) -> None:
        try:
            with User(self, "probe").request("GET", ACTIVE) as response:
                status = response.status
        except ClientError as error:
            raise Unusable(str(error)) from error
        if status in {401, 403}:
            raise Unusable(f"{self.url} refuses these credentials with {status}: see --header")


def echoed(message: str) -> str:
    """The reply of an agent that repeats messages and understands `/slow N text`."""
    return message.split(" ", 2)[-1] if message.startswith("/slow ") else message


def _parse_cookie(value: str) -> dict[str, str]:
    try:
        return {name: morsel.coded_value for name, morsel in SimpleCookie(value).items()}
    except CookieError:
        return {}


def _shown(path: str) -> str:
    return path if len(path) < 80 else f"{path[:77]}..."
