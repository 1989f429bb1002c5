"""/api/chat: send a message, follow its reply, resume it, stop it."""

from flask import Blueprint, Response, jsonify, request

from bff import errors
from bff.api import brokers, client_protocols, hooks, numbered_replies, reconnects, reply_stream, services
from bff.api.adapters.ag_ui import RunAgentInput
from bff.api.adapters.ai_sdk import AI_SDK, ChatTransportRequest
from bff.api.adapters.base import ParsedRequest, ResumePoint, Sent, chat_id_key
from bff.api.adapters.native import NATIVE
from bff.api.client_protocols import PROTOCOLS
from bff.api.destination import choose_destination, enqueue_content
from bff.api.engine_request import engine_request
from bff.api.openapi import (
    AUTH_ERRORS,
    BODY_ERRORS,
    LIMIT_ERRORS,
    REPLY_ERRORS,
    UPSTREAM_ERRORS,
    ResponseSpec,
    describe,
)
from bff.api.openapi.parameters import (
    CHAT_RESUME,
    EVENT_SOURCE,
    IDEMPOTENCY_KEY,
    IDS,
    RUN_ID,
    START_INDEX,
    TANSTACK,
    protocol_parameter,
)
from bff.api.openapi.responses import CHAT_STREAM, STOPPING
from bff.api.openapi.schemas import Active, ChatReply, Thread
from bff.auth.identity import Identity
from bff.errors import InvalidRequest, NotFound, UnsupportedMediaType
from bff.http import event_ids, request_body
from bff.upstream import messages
from bff.upstream.broker_client import ActiveMessage, BrokerClient
from bff.upstream.messages import ChatRequest

bp = Blueprint("chat", __name__, url_prefix="/api/chat")
hooks.add_hooks(bp)


@bp.post("/stream")
@describe(
    "Send a message; the reply is streamed.",
    {200: CHAT_STREAM},
    (
        *AUTH_ERRORS,
        *BODY_ERRORS,
        *LIMIT_ERRORS,
        *UPSTREAM_ERRORS,
        errors.Busy,
        errors.Expired,
        errors.IdempotencyConflict,
    ),
    bodies=(ChatRequest, ChatTransportRequest, RunAgentInput),
    parameters=(IDEMPOTENCY_KEY, RUN_ID, CHAT_RESUME, protocol_parameter(PROTOCOLS), IDS),
)
def stream() -> Response:
    """Enqueues the message and opens its stream before the response starts, so that earlier failures are plain JSON."""
    identity = hooks.identity()
    protocol = client_protocols.named()
    body = hooks.body(allow_text=True)
    protocol = protocol or client_protocols.of_body(body)
    if protocol is not AI_SDK and not request_body.is_json(request.environ):
        raise UnsupportedMediaType
    run_id = client_protocols.run_id(protocol)
    first = None if run_id is None else client_protocols.next_event()
    parsed = protocol.parse_request(body)
    if run_id and first and (known := numbered_replies.find_run(identity, run_id)):
        return numbered_replies.follow_run(identity, known, parsed.context, first)
    message = messages.parse(parsed.body, request.headers.get("Idempotency-Key", run_id))
    parts = services.parts()
    if known := _known_message(identity, message):
        _enqueue(identity, parsed, message)  # Raises IdempotencyConflict.
        return resume(known)
    parts.rate.acquire(identity.user_id)
    resumable = run_id is not None or reconnects.client_resumes()
    with parts.streams.acquire(identity.user_id, resumable=resumable) as slot:
        broker, message_id, deadline = _enqueue(identity, parsed, message)
        reply = broker.follow(identity.user_id, message_id, deadline)
        encoder = protocol.encoder and protocol.encoder(message_id, parsed.context, Sent.NOTHING)
        return reply_stream.stream_response(reply, message_id, slot, protocol, encoder, broker=broker, first=first)


def _known_message(identity: Identity, message: ChatRequest) -> str | None:
    """The message of which a client reads on that sends its POST again, with the id of the last event that it has read."""
    if "Last-Event-ID" not in request.headers or message.client_message_id is None:
        return None
    return services.parts().own_broker.find(identity.user_id, message.client_message_id)


def _enqueue(identity: Identity, parsed: ParsedRequest, message: ChatRequest) -> tuple[BrokerClient, str, float]:
    """Returns the broker, the message's id, and the moment (monotonic) by which its stream must be open."""
    broker, deadline, more = choose_destination(identity.user_id)
    chat = {"chat_id": parsed.chat_id} if parsed.chat_id else {}
    content = enqueue_content(message, services.parts().settings) | chat | more
    return broker, broker.enqueue(identity, content, deadline).message_id, deadline


@bp.post("")
@describe(
    "Send a message; the engine's whole reply is returned as JSON.",
    {200: ResponseSpec("The reply.", ChatReply)},
    (*AUTH_ERRORS, *BODY_ERRORS, *LIMIT_ERRORS, *UPSTREAM_ERRORS, *REPLY_ERRORS),
    bodies=(ChatRequest,),
)
def complete() -> Response:
    """Returns the whole reply as JSON. It comes directly from the engine."""
    identity = hooks.identity()
    message = messages.parse(hooks.body(), request.headers.get("Idempotency-Key"))
    parts = services.parts()
    parts.rate.acquire(identity.user_id)
    user = {"client_id": parts.settings.client_id, "user_id": identity.user_id, "org": identity.org}
    with engine_request() as (_, _, waiter):
        return jsonify(parts.engine.chat(message.for_upstream() | user, waiter))


@bp.get("/stream")
@describe(
    "Resume a run of TanStack AI (`runId`), or show the active run of a thread (`threadId`).",
    {200: CHAT_STREAM._replace(model=Thread)},
    (*AUTH_ERRORS, *LIMIT_ERRORS, *UPSTREAM_ERRORS, errors.NotFound, errors.Expired, errors.InvalidRequest),
    parameters=TANSTACK,
)
def resume_run() -> Response:
    """The thread's transcript stays with the client: what the engine stores is the user's, not the thread's."""
    identity, run_id, thread_id = hooks.identity(), request.args.get("runId"), request.args.get("threadId")
    if run_id:
        if (message_id := numbered_replies.find_run(identity, run_id)) is None:
            raise NotFound
        return numbered_replies.follow_run(identity, message_id, {"runId": run_id}, client_protocols.next_event())
    if not thread_id:
        raise InvalidRequest("runId or threadId is required.")
    active = _latest_message(identity, thread_id)
    return jsonify(messages=[], activeRun={"runId": active.message_id} if active else None, interrupts=None)


@bp.get("/stream/<message_id>")
@describe(
    "Follow a reply from its start, or resume it.",
    {200: CHAT_STREAM, 204: ResponseSpec("The reply has ended, and the reader has seen its end.")},
    (*AUTH_ERRORS, *LIMIT_ERRORS, *UPSTREAM_ERRORS, errors.NotFound, errors.Expired),
    parameters=(*EVENT_SOURCE, CHAT_RESUME, protocol_parameter(PROTOCOLS), IDS),
)
def resume(message_id: str) -> Response:
    """Status 204 if nothing is left to read, which ends an `EventSource`."""
    identity = hooks.identity_or_ticket()
    after = event_ids.from_reader(request.headers.get("Last-Event-ID", ""), request.args.get("last_event_id", ""))
    protocol = client_protocols.named() or NATIVE
    after, sent = (after, Sent.NOTHING) if protocol is NATIVE else ResumePoint.of(after)
    # Clients of other protocols take a clean end of the stream for the end of the reply, unless they say otherwise.
    resumable = protocol is NATIVE or reconnects.client_resumes()
    with services.parts().streams.acquire(identity.user_id, resumable=resumable) as slot:
        brokers.check_message_id(message_id, identity)
        broker, reply = brokers.try_brokers(
            identity, lambda broker: broker.resume(identity.user_id, message_id, broker.open_deadline(), after)
        )
        if reply is not None and sent is Sent.END:
            # The reply may continue, but this client was sent an error: its protocol cannot take back output at a restart.
            reply.close()
        elif reply is not None:
            encoder = protocol.encoder and protocol.encoder(message_id, {}, sent)
            retry = reconnects.retry_milliseconds()
            return reply_stream.stream_response(reply, message_id, slot, protocol, encoder, retry, broker=broker)
        slot.release()
        return Response(status=204)


@bp.get("/stream/<chat_id>/stream")
@describe(
    "Resume the latest reply in a chat; for the AI SDK, which uses chat ids of its own.",
    {200: CHAT_STREAM, 204: ResponseSpec("No reply is running in this chat.")},
    (*AUTH_ERRORS, *LIMIT_ERRORS, *UPSTREAM_ERRORS, errors.NotFound, errors.Expired),
    parameters=(*EVENT_SOURCE, START_INDEX, CHAT_RESUME, protocol_parameter(PROTOCOLS), IDS),
)
def resume_latest(chat_id: str) -> Response:
    """Resumes the last message that waits or runs and was sent with this chat id. The AI SDK uses this URL.

    Of an external broker that does not keep chat ids, the user's last message.
    """
    start = client_protocols.start_index()
    active = _latest_message(hooks.identity_or_ticket(), chat_id)
    if start is not None:
        return numbered_replies.follow_workflow(active.message_id if active else chat_id, start)
    return resume(active.message_id) if active else Response(status=204)


def _latest_message(identity: Identity, chat_id: str) -> ActiveMessage | None:
    """The last message that waits or runs in a chat."""
    possible = {chat_id_key(chat_id), None}
    active = [message for message in brokers.active_messages(identity) if message.chat_id in possible]
    return active[-1] if active else None


@bp.post("/stream/<message_id>/stop")
@describe(
    "Stop a reply, or remove its message from the queue. Idempotent.",
    {202: STOPPING},
    (*AUTH_ERRORS, *UPSTREAM_ERRORS, errors.NotFound, errors.Expired),
)
def stop(message_id: str) -> tuple[Response, int]:
    identity = hooks.identity()
    brokers.check_message_id(message_id, identity)
    brokers.try_brokers(identity, lambda broker: broker.stop(identity.user_id, message_id))
    return jsonify(status="stopping"), 202


@bp.get("/active")
@describe(
    "List the user's queued and running messages.",
    {200: ResponseSpec("The messages, in the order of the queue.", Active)},
    (*AUTH_ERRORS, *UPSTREAM_ERRORS),
)
def active() -> Response:
    shown = [message._asdict() for message in brokers.active_messages(hooks.identity())]
    return jsonify(messages=[{name: fields[name] for name in ("message_id", "state", "position")} for fields in shown])
