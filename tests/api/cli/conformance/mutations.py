"""Ways to change what a server receives and sends: what single faults are made of."""

import gzip
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tests.api.cli.conformance.proxy import Fault, Head, Request

Frames = Iterator[bytes]
_users = itertools.count()


def without_header(*names: str) -> Fault:
    def head(_: Request, head: Head) -> Head:
        return Head(head.status, {name: value for name, value in head.headers.items() if name not in names})

    return Fault(head=head)


def with_header(name: str, value: str) -> Fault:
    return Fault(head=lambda _, head: Head(head.status, head.headers | {name: value}))


def with_status(old: int, new: int) -> Fault:
    return Fault(head=lambda _, head: Head(new if head.status == old else head.status, head.headers))


def responds(condition: Callable[[Request], bool], answer: bytes) -> Fault:
    """Without the server."""
    return Fault(request=lambda request: answer if condition(request) else request)


def frames(change: Callable[[bytes], bytes], condition: Callable[[Request], bool] = lambda _: True) -> Fault:
    """Changes each frame of some streams; b"" drops it."""

    def changed(request: Request, frames: Frames) -> Iterable[bytes]:
        return filter(None, map(change, frames)) if condition(request) else frames

    return Fault(frames=changed)


def replace(pattern: str, by: str) -> Fault:
    """In each frame."""
    return frames(lambda frame: re.sub(pattern.encode(), by.encode(), frame))


def drop(pattern: str, condition: Callable[[Request], bool] = lambda _: True) -> Fault:
    """Drops the frames that contain it."""
    return frames(lambda frame: b"" if pattern.encode() in frame else frame, condition)


def drop_first(condition: Callable[[Request], bool], pattern: bytes = b"") -> Fault:
    """Drops the first frame that contains it."""

    def changed(request: Request, frames: Frames) -> Frames:
        is_dropped = not condition(request)
        for frame in frames:
            if not is_dropped and pattern in frame:
                is_dropped = True
            else:
                yield frame

    return Fault(frames=changed)


def repeat_first(condition: Callable[[Request], bool]) -> Fault:
    def changed(request: Request, frames: Frames) -> Frames:
        for number, frame in enumerate(frames):
            yield frame
            if number == 0 and condition(request):
                yield frame

    return Fault(frames=changed)


def swap_first(condition: Callable[[Request], bool]) -> Fault:
    def changed(request: Request, frames: Frames) -> Frames:
        if condition(request) and (first := next(frames, None)) is not None:
            yield from filter(None, (next(frames, None), first))
        yield from frames

    return Fault(frames=changed)


def before_first(data: bytes) -> Fault:
    return Fault(frames=lambda _, frames: (frame if number else data + frame for number, frame in enumerate(frames)))


def after_last(data: bytes) -> Fault:
    return Fault(frames=lambda _, frames: itertools.chain(frames, [data]))


def buffer_all(_: Request, frames: Frames) -> Frames:
    yield b"".join(frames)


def in_blocks(_: Request, frames: Frames) -> Frames:
    """As a proxy with a buffer of 1 KiB."""
    pending = b""
    for frame in frames:
        pending += frame
        if len(pending) >= 1024:
            yield pending
            pending = b""
    yield pending


def compressed_head(request: Request, head: Head) -> Head:
    accepts = "gzip" in request.headers.get("accept-encoding", "")
    return Head(head.status, head.headers | {"content-encoding": "gzip"}) if accepts else head


def compressed(request: Request, frames: Frames) -> Frames:
    accepts = "gzip" in request.headers.get("accept-encoding", "")
    return map(gzip.compress, frames) if accepts else frames


def change_request(change: Callable[[Request], Request]) -> Fault:
    return Fault(request=change)


def without_request_headers(*names: str, condition: Callable[[Request], bool] = lambda _: True) -> Fault:
    def change(request: Request) -> Request:
        remaining = {name: value for name, value in request.headers.items() if name not in names}
        return request._replace(headers=remaining) if condition(request) else request

    return change_request(change)


def with_request_header(name: str, value: Callable[[Request], str]) -> Fault:
    return change_request(lambda request: request._replace(headers=request.headers | {name: value(request)}))


def without_query(request: Request) -> Request:
    return request._replace(path=request.path.partition("?")[0])


def without_fields(*names: str) -> Callable[[Request], Request]:
    """Of a message's body and, for the key, of the headers."""

    def change(request: Request) -> Request:
        if not request.is_message:
            return request
        try:
            content: dict[str, Any] = json.loads(request.body)
        except ValueError:
            return request
        body = json.dumps({name: value for name, value in content.items() if name not in names}).encode()
        headers = {name: value for name, value in request.headers.items() if name not in names}
        return request._replace(body=body, headers=headers | {"content-length": str(len(body))})

    return change


def new_user_for_each_message(request: Request) -> str:
    user = request.headers.get("x-forwarded-user", "")
    return f"{user}-{next(_users)}" if request.is_message else user


def with_length(request: Request) -> Request:
    if not request.is_message or "content-length" in request.headers:
        return request
    return request._replace(headers=request.headers | {"content-length": "2"}, body=b"{}")


def json_body(change: Callable[[dict[str, Any]], object]) -> Fault:
    """Changes the JSON of a refusal."""

    def body(_: Request, body: bytes) -> bytes:
        content = json.loads(body or b"{}")
        change(content)
        return json.dumps(content).encode()

    return Fault(body=body)


def is_message(request: Request) -> bool:
    return request.is_message


def is_follow(request: Request) -> bool:
    return request.is_follow


def is_resume(request: Request) -> bool:
    return request.is_resume


def is_conversation(request: Request) -> bool:
    return request.path.startswith("/api/conversations")


def counted(_: Request, frames: Frames) -> Frames:
    """Adds the number of the stream to each event."""
    number = next(_users)
    return (frame.replace(b'": "', b'": "%d ' % number) for frame in frames)


def is_stop(request: Request) -> bool:
    return request.is_stop


def is_fresh_follow(request: Request) -> bool:
    return request.is_follow and not request.is_resume
