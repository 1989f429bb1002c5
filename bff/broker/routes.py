"""The broker's HTTP contract: enqueue a message, follow its log, stop it, see the queue."""

import hmac
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple

from flask import Blueprint, Flask, Response, current_app, jsonify, request
from werkzeug.exceptions import HTTPException

from bff.broker.message_request import MessageRequest
from bff.broker.queue.base import Counts, Message, Queue, QueuePosition
from bff.broker.webhooks.targets import webhook_for
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
    error_for_status,
)
from bff.http import request_body, tracing
from bff.http.responses import EventStream, StreamOptions, without_empty_type
from bff.http.sse import Event, comment
from bff.http.streams import StreamLimiter
from bff.http.url_converters import allow_any_text
from bff.http.waiting import Waiter
from bff.ops import metrics
from bff.ops.lifecycle import Lifecycle
from bff.upstream import message_ids
from bff.upstream.http import origin_of

PING: Final = comment("ping")
PING_SECONDS: Final = 15.0
PUBLIC_PATHS: Final = frozenset({"/health", "/metrics"})
"""They need no key; `/metrics` has one of its own."""
WEBHOOKS_PATH: Final = "/api/v1/webhooks"
DELIVERY_ID: Final = "[0-9a-f]{72}"

bp = Blueprint("broker", __name__)
log = logging.getLogger(__name__)


class Parts(NamedTuple):
    queue: Queue
    worker: Worker
    streams: StreamLimiter
    key: str
    settings: Settings
    is_repeatable: Callable[[str, str], bool]
    """Whether a reply may be retried after its output has begun; by handler and agent id, "" for the default agent."""
    lifecycle: Lifecycle

    def queue_sizes(self) -> dict[str, float]:
        return _queue_sizes(self.queue)

    def __repr__(self) -> str:
        return "Parts(…)"  # Hides the key.


def register(app: Flask, parts: Parts) -> None:
    app.extensions["chat_bff"] = parts
    allow_any_text(app.url_map)
    app.register_blueprint(bp)
    app.register_error_handler(Exception, _error_response)
    app.after_request(without_empty_type)


def _parts() -> Parts:
    parts: Parts = current_app.extensions["chat_bff"]
    return parts


@bp.before_request
def _check_key() -> None:
    tracing.begin(request.headers)
    key = request.headers.get("X-API-Key", "").encode("utf-8", "replace")
    if request.path not in PUBLIC_PATHS and not hmac.compare_digest(key, _parts().key.encode()):
        raise Unauthorized("The X-API-Key is missing or wrong.")


@bp.post("/api/v1/message")
def enqueue() -> Response:
    parts = _parts()
    if parts.streams.draining:
        raise ServerRestarting  # A queue in memory would lose the message.
    body = request_body.read(request.environ, parts.settings.max_body_bytes, parts.settings.request_seconds)
    content = request_body.parse(MessageRequest, body)
    message = _message(content, len(body))
    add = partial(parts.queue.enqueue, message, content.client_message_id, content.on_busy or parts.settings.on_busy)
    receipt = parts.worker.start_now(partial(add, claim=True)) if content.handler == "external" else add()
    parts.worker.start()
    if receipt.message_id != message.id and not message.cancel_on_disconnect:
        parts.queue.continue_without_readers(content.user_id, receipt.message_id)
    log.info("message %s was enqueued", receipt.message_id, extra={"message_id": receipt.message_id, "ahead": receipt.ahead})
    return jsonify(
        status="queued",
        message_id=receipt.message_id,
        queue_position=receipt.ahead + 1,
        responses=None,
        response_language=None,
        voice_audio_base64=None,
    )


def _message(content: MessageRequest, size: int) -> Message:
    parts = _parts()
    return Message(
        id=message_ids.new_id(content.org_id, content.user_id, content.group, content.message_uuid),
        user_id=content.user_id,
        content=content.for_engine(),
        size=size,
        cancel_on_disconnect=(content.on_disconnect or parts.settings.on_disconnect) == "cancel",
        trace=tracing.inject(),
        handler=content.handler,
        run_scope=content.run_scope,
        run_key=content.run_key if content.run_scope else content.chat_id,
        repeatable=content.restartable and parts.is_repeatable(content.handler, content.agent_id or ""),
        webhook=webhook_for(content, parts.settings),
    )


@bp.get("/api/v1/stream")
def follow() -> Response:
    """`?wait=0`: ends after the events that the log has now, without a terminal event if the reply is still being produced."""
    parts = _parts()
    queue = parts.queue
    user_id, message_id = request.args.get("user_id", ""), request.args.get("message_id", "")
    after = request.headers.get("Last-Event-ID", "")
    on_disconnect = request.args.get("on_disconnect")
    if on_disconnect == "continue":
        queue.continue_without_readers(user_id, message_id)
    only_stored = request.args.get("wait") == "0"
    page = queue.read(user_id, message_id, after)
    if after and page.ended and all(event.event == "done" for event in page.events):
        return Response(status=204)  # Ends an EventSource's reconnects: it has the whole reply.

    def events(waiter: Waiter) -> Iterator[Event | None]:
        cancel = on_disconnect == "cancel"
        return _follow(queue, user_id, message_id, after, waiter, only_stored=only_stored, cancel=cancel)

    slot = parts.streams.acquire(user_id)
    seconds = min(PING_SECONDS, parts.settings.keepalive_seconds)
    return EventStream(events, StreamOptions(PING, seconds), environ=request.environ, slot=slot)


def _follow(
    queue: Queue, user_id: str, message_id: str, after: str, waiter: Waiter, *, only_stored: bool, cancel: bool
) -> Iterator[Event | None]:
    """Ends without a terminal event if the log cannot be read any more: a reconnect gets the error, or continues."""
    with (
        suppress(StorageUnavailable, Expired, NotFound, ServerFull),
        queue.subscribe(user_id, message_id, waiter.wake, cancel_on_disconnect=cancel),
    ):
        while True:
            page = queue.read(user_id, message_id, after)
            for event in page.events:
                yield event
                after = event.id
            if page.ended or (only_stored and not page.has_more):
                return
            yield None  # Flushes this page before the next one is read.
            if not page.has_more:
                waiter.wait()


@bp.delete("/api/v1/message/<message_id>")
def stop(message_id: str) -> tuple[Response, int]:
    """`?if=unread`: only a message that is cancelled on disconnect and has no readers."""
    queue = _parts().queue
    cancel = queue.cancel_if_no_readers if request.args.get("if") == "unread" else queue.stop
    cancel(request.args.get("user_id", ""), message_id)
    return jsonify(status="stopping"), 202


@bp.get("/api/v1/queue/<any_text:user_id>")
def show_queue(user_id: str) -> Response:
    """`?group=`: that group's messages in place of the user's own; `?event_id=`: also the message whose log has that event.

    `?client_message_id=`: also the message that was enqueued with it.
    """
    group, event_id = request.args.get("group", ""), request.args.get("event_id", "")
    positions = _parts().queue.positions(user_id, group)
    located = {"located": _parts().queue.locate(user_id, group, event_id)} if event_id else {}
    client_id = request.args.get("client_message_id", "")
    found = {"found": _parts().queue.find(user_id, group, client_id)} if client_id else {}
    running = next((entry.message_id for entry in positions if entry.state == "running"), None)
    return jsonify(
        user_id=user_id,
        queue_length=len(positions) - (running is not None),
        is_processing=running is not None,
        current_message_id=running,
        messages=[entry._asdict() if "group" in request.args else _public_position(entry) for entry in positions],
        **located,
        **found,
    )


def _public_position(entry: QueuePosition) -> dict[str, Any]:
    chat_id = "" if entry.run_scope else entry.run_key
    return {"message_id": entry.message_id, "state": entry.state, "position": entry.position, "chat_id": chat_id}


@bp.get("/api/v1/webhooks")
def list_webhooks() -> Response:
    """The deliveries that wait or have failed. Only the origins of their URLs: the rest may hold a secret."""
    entries = [entry._asdict() | {"url": origin_of(entry.url)} for entry in _parts().queue.deliveries.entries()]
    return jsonify(webhooks=entries)


@bp.post("/api/v1/webhooks/<delivery_id>/send")
def send_webhook(delivery_id: str) -> tuple[Response, int]:
    """Has it tried again now."""
    if not re.fullmatch(DELIVERY_ID, delivery_id) or not _parts().queue.deliveries.send_again(delivery_id):
        raise NotFound
    return jsonify(status="waiting"), 202


@bp.get("/health")
def health() -> Response:
    parts = _parts()
    try:
        parts.queue.check_writes()
        counts, has_workers = parts.queue.counts(), parts.queue.has_workers()
        status = "healthy" if has_workers else "degraded"
    except (StorageUnavailable, ServerFull):
        counts, has_workers, status = Counts(0, 0), False, "unhealthy"
    return jsonify(
        status=status,
        redis_connected=bool(parts.settings.redis_url) and status != "unhealthy",
        active_queues=counts.queues,
        messages_processing=counts.running,
        worker_connected=has_workers,
    )


@bp.get("/metrics")
def show_metrics() -> Response:
    """Raises Unauthorized; NotFound in production without METRICS_TOKEN."""
    settings = _parts().settings
    metrics.check(request.headers.get("Authorization", ""), settings.metrics_token, development=settings.development)
    text = metrics.exposition(settings.prometheus_multiproc_dir, _parts().queue_sizes)
    return Response(text, content_type=metrics.CONTENT_TYPE)


def _queue_sizes(queue: Queue) -> dict[str, float]:
    try:
        return {
            "chat_broker_running": queue.counts().running,
            "chat_broker_waiting": queue.waiting(),
            "chat_webhooks_undelivered": queue.deliveries.count(),
        }
    except StorageUnavailable:
        return {}


def _error_response(error: Exception) -> Response:
    if isinstance(error, HTTPException):
        request.routing_exception = None  # Breaks a reference cycle: its traceback refers to the request.
        error = error_for_status(error.code)
    if not isinstance(error, ChatError):
        current_app.logger.error("unexpected error in the broker", exc_info=error)
        error = InternalError()
    content = {"detail": str(error), "code": error.code} | ({"message_id": error.message_id} if error.message_id else {})
    response = jsonify(content)
    response.status_code = error.status
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response
