"""The broker's HTTP contract: leave a message, follow its log, stop it, see the queue."""

import hmac
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Annotated, Any, Final, Literal, NamedTuple

from flask import Blueprint, Flask, Response, current_app, jsonify, request
from pydantic import BaseModel, StrictStr, StringConstraints
from werkzeug.exceptions import HTTPException

from bff.broker.queue.base import Counts, Message, Queue, QueuePosition
from bff.broker.worker import Worker
from bff.config.settings import Settings
from bff.errors import (
    ChatError,
    Expired,
    InternalError,
    NotFound,
    ServerFull,
    ServerRestarting,
    StorageUnavailable,
    Unauthorized,
    by_status,
)
from bff.http import request_body, tracing
from bff.http.responses import EventStream, StreamOptions
from bff.http.sse import Event, comment
from bff.http.streams import StreamLimiter
from bff.http.url_converters import allow_any_text
from bff.http.waiting import Waiter
from bff.ops import metrics
from bff.ops.health import Probe
from bff.ops.lifecycle import Lifecycle
from bff.upstream import message_ids

PING: Final = comment("ping")
PING_SECONDS: Final = 15.0
OPEN: Final = frozenset({"/health", "/metrics"})
"""What needs no key, or another one."""

FOR_ENGINE: Final = {"client_id", "user_id", "message", "message_type", "audio_base64", "audio_format"} | {
    "conversation_id",
    "question_id",
    "agent_id",
    "regenerate",
    "messages",
}
"""The fields that whoever answers is told."""

Id = Annotated[StrictStr, StringConstraints(min_length=1, max_length=1024)]
bp = Blueprint("broker", __name__)
log = logging.getLogger(__name__)


class Parts(NamedTuple):
    queue: Queue
    worker: Worker
    streams: StreamLimiter
    key: str
    settings: Settings
    repeatable: Callable[[str, str], bool]
    """Whether whoever answers may be asked again: by handler and agent, "" for the default one."""
    check_writes: Probe
    """Raises Away or ServerFull while what the queue is kept in takes no writes."""
    lifecycle: Lifecycle

    def queue_sizes(self) -> dict[str, float]:
        return _queue_sizes(self.queue)

    def __repr__(self) -> str:
        return "Parts(…)"  # The key is one of them.


class MessageRequest(BaseModel):
    """The body of `POST /api/v1/message`. Keys it does not name are ignored."""

    user_id: Id
    org_id: Id
    client_id: Id
    message: StrictStr
    message_type: Literal["text", "audio"] = "text"
    audio_base64: StrictStr | None = None
    audio_format: StrictStr | None = None
    client_message_id: Id | None = None
    on_busy: Literal["enqueue", "reject", "interrupt"] | None = None
    on_disconnect: Literal["continue", "cancel"] | None = None
    group: Annotated[StrictStr, StringConstraints(max_length=1024)] = ""
    handler: Literal["engine", "bundled", "external"] = "engine"
    run_scope: Annotated[StrictStr, StringConstraints(max_length=256)] = ""
    run_key: Annotated[StrictStr, StringConstraints(max_length=256)] = ""
    conversation_id: Id | None = None
    question_id: Id | None = None
    agent_id: Id | None = None
    regenerate: StrictStr | None = None
    messages: list[dict[str, Any]] | None = None

    def for_engine(self) -> dict[str, Any]:
        return self.model_dump(include=FOR_ENGINE, exclude_none=True) | {"org": self.org_id}


def register(app: Flask, parts: Parts) -> None:
    app.extensions["chat_bff"] = parts
    allow_any_text(app.url_map)
    app.register_blueprint(bp)
    app.register_error_handler(Exception, _refuse)


def _parts() -> Parts:
    parts: Parts = current_app.extensions["chat_bff"]
    return parts


@bp.before_request
def _check_key() -> None:
    tracing.begin(request.headers)
    shown = request.headers.get("X-API-Key", "").encode("utf-8", "replace")
    if request.path not in OPEN and not hmac.compare_digest(shown, _parts().key.encode()):
        raise Unauthorized("The X-API-Key is missing or wrong.")


@bp.post("/api/v1/message")
def leave() -> Response:
    parts = _parts()
    if parts.streams.draining:
        raise ServerRestarting  # What is left now might be lost with this process's memory.
    body = request_body.read(request.environ, parts.settings.max_body_bytes, parts.settings.request_seconds)
    left = request_body.validated(MessageRequest, body)
    message = _message(left, len(body))
    about = (message, left.client_message_id, left.on_busy or parts.settings.on_busy)
    if left.handler == "external":
        receipt = parts.worker.start_now(lambda: parts.queue.enqueue(*about, claim=True))
    else:
        receipt = parts.queue.enqueue(*about)
    parts.worker.start()
    if receipt.message_id != message.id and not message.cancel_on_disconnect:
        parts.queue.continue_without_readers(left.user_id, receipt.message_id)
    log.info("message %s was left", receipt.message_id, extra={"message_id": receipt.message_id, "ahead": receipt.ahead})
    return jsonify(
        status="queued",
        message_id=receipt.message_id,
        queue_position=receipt.ahead + 1,
        responses=None,
        response_language=None,
        voice_audio_base64=None,
    )


def _message(left: MessageRequest, size: int) -> Message:
    return Message(
        id=message_ids.new_id(left.org_id, left.user_id, left.group),
        user_id=left.user_id,
        content=left.for_engine(),
        size=size,
        cancel_on_disconnect=(left.on_disconnect or _parts().settings.on_disconnect) == "cancel",
        trace=tracing.kept(),
        handler=left.handler,
        run_scope=left.run_scope,
        run_key=left.run_key,
        repeatable=_parts().repeatable(left.handler, left.agent_id or ""),
    )


@bp.get("/api/v1/stream")
def follow() -> Response:
    parts = _parts()
    queue = parts.queue
    user_id, message_id = request.args.get("user_id", ""), request.args.get("message_id", "")
    after = request.headers.get("Last-Event-ID", "")
    if request.args.get("on_disconnect") == "continue":
        queue.continue_without_readers(user_id, message_id)
    page = queue.read(user_id, message_id, after)
    if after and page.over and all(event.event == "done" for event in page.events):
        return Response(status=204)  # The reader has seen the end.

    def say(waiter: Waiter) -> Iterator[Event | None]:
        return _follow(queue, user_id, message_id, after, waiter)

    slot = parts.streams.acquire(user_id)
    return EventStream(say, StreamOptions(PING, PING_SECONDS), environ=request.environ, slot=slot)


def _follow(queue: Queue, user_id: str, message_id: str, after: str, waiter: Waiter) -> Iterator[Event | None]:
    with (
        suppress(
            StorageUnavailable, Expired, NotFound, ServerFull
        ),  # Whoever comes back to where it was is told, or finds it there again.
        queue.subscribe(user_id, message_id, waiter.wake),
    ):
        while True:
            page = queue.read(user_id, message_id, after)
            for event in page.events:
                yield event
                after = event.id
            if page.over:
                return
            yield None  # After each page: what is read is said before more of it is.
            if not page.more:
                waiter.wait()


@bp.delete("/api/v1/message/<message_id>")
def stop(message_id: str) -> tuple[Response, int]:
    """`?if=unread`: only where it is for its readers only, and none is left."""
    queue = _parts().queue
    end = queue.cancel_if_no_readers if request.args.get("if") == "unread" else queue.stop
    end(request.args.get("user_id", ""), message_id)
    return jsonify(status="stopping"), 202


@bp.get("/api/v1/queue/<any_text:user_id>")
def see(user_id: str) -> Response:
    """`?group=`: of that group, and not the user's own; `?event_id=`: with the message whose log holds that event."""
    group, event_id = request.args.get("group", ""), request.args.get("event_id", "")
    positions = _parts().queue.positions(user_id, group)
    located = {"located": _parts().queue.locate(user_id, group, event_id)} if event_id else {}
    running = next((entry.message_id for entry in positions if entry.state == "running"), None)
    return jsonify(
        user_id=user_id,
        queue_length=len(positions) - (running is not None),
        is_processing=running is not None,
        current_message_id=running,
        messages=[entry._asdict() if "group" in request.args else _shown(entry) for entry in positions],
        **located,
    )


def _shown(entry: QueuePosition) -> dict[str, Any]:
    return {"message_id": entry.message_id, "state": entry.state, "position": entry.position}


@bp.get("/health")
def health() -> Response:
    parts = _parts()
    try:
        parts.check_writes()
        counts, worked = parts.queue.counts(), parts.queue.has_workers()
        status = "healthy" if worked else "degraded"
    except (StorageUnavailable, ServerFull):
        counts, worked, status = Counts(0, 0), False, "unhealthy"
    return jsonify(
        status=status,
        redis_connected=bool(parts.settings.redis_url) and status != "unhealthy",
        active_queues=counts.queues,
        messages_processing=counts.running,
        worker_connected=worked,
    )


@bp.get("/metrics")
def numbers() -> Response:
    """Raises Unauthorized; NotFound in production without METRICS_TOKEN."""
    settings = _parts().settings
    metrics.check(request.headers.get("Authorization", ""), settings.metrics_token, development=settings.development)
    shown = metrics.exposition(settings.prometheus_multiproc_dir, _parts().queue_sizes)
    return Response(shown, content_type=metrics.CONTENT_TYPE)


def _queue_sizes(queue: Queue) -> dict[str, float]:
    try:
        running, waiting = queue.counts().running, queue.waiting()
    except StorageUnavailable:
        return {}
    return {"chat_broker_running": running, "chat_broker_waiting": waiting}


def _refuse(error: Exception) -> Response:
    if isinstance(error, HTTPException):
        request.routing_exception = None  # Raised by Flask, its traceback refers to the request.
        error = by_status(error.code)
    if not isinstance(error, ChatError):
        current_app.logger.error("the broker stumbled", exc_info=error)
        error = InternalError()
    content = {"detail": str(error), "code": error.code} | ({"message_id": error.message_id} if error.message_id else {})
    response = jsonify(content)
    response.status_code = error.status
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response
