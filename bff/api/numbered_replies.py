"""Replies for clients that count events: see client_protocols.py."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from flask import Response, request

from bff.api import brokers, hooks, reconnects, reply_stream, services
from bff.api.adapters.ag_ui import AG_UI
from bff.api.adapters.ai_sdk import NOTHING_RUNS, WORKFLOW, WorkflowEncoder
from bff.api.adapters.base import ClientProtocol, Sent
from bff.api.adapters.numbered import number
from bff.auth.identity import Identity
from bff.errors import Draining, NotFound
from bff.http import waiting
from bff.http.responses import HEADERS
from bff.http.sse import Event
from bff.upstream import message_ids

TAIL_HEADER: Final = "x-workflow-stream-tail-index"


def find_run(identity: Identity, run_id: str) -> str | None:
    """The message of a TanStack AI client's run. Its id is the client's, or the message's if we have named the run."""
    if message_ids.is_own(run_id):
        return run_id
    return services.parts().own_broker.find(identity.user_id, run_id)


def follow_run(identity: Identity, message_id: str, context: Mapping[str, Any], first: int) -> Response:
    """Follows a reply for a TanStack AI client. Raises NotFound, Expired, an UpstreamFailure."""
    return _follow(identity, message_id, AG_UI, first, context)


def follow_workflow(message_id: str, start: int) -> Response:
    """Follows a reply for a `WorkflowChatTransport`; `start` below 0 counts from the end of what the log has now.

    If there is no such message, it is taken for a chat in which no reply runs, unless it can only be a message of ours.
    """
    identity = hooks.identity_or_ticket()
    try:
        brokers.check_message_id(message_id, identity)
        tail = _tail(identity, message_id) if start < 0 else None
        first = max(0, start if tail is None else tail + 1 + start)
        headers = {} if tail is None else {TAIL_HEADER: str(tail)}
        return _follow(identity, message_id, WORKFLOW, first, {}, headers)
    except NotFound:
        if message_ids.is_own(message_id):
            raise
    return nothing_runs()


def nothing_runs() -> Response:
    return Response(NOTHING_RUNS, content_type="text/event-stream; charset=utf-8", headers=HEADERS)


def _follow(
    identity: Identity,
    message_id: str,
    protocol: ClientProtocol,
    first: int,
    context: Mapping[str, Any],
    headers: dict[str, str] | None = None,
) -> Response:
    brokers.check_message_id(message_id, identity)
    with services.parts().streams.acquire(identity.user_id, resumable=True) as slot:
        broker, reply = brokers.try_brokers(
            identity, lambda broker: broker.follow(identity.user_id, message_id, broker.open_deadline())
        )
        assert protocol.encoder is not None
        encoder = protocol.encoder(message_id, context, Sent.NOTHING)
        return reply_stream.stream_response(
            reply,
            message_id,
            slot,
            protocol,
            encoder,
            reconnects.retry_milliseconds(),
            broker=broker,
            first=first,
            headers=headers,
        )


def _tail(identity: Identity, message_id: str) -> int | None:
    """The number of the last event that the log has now; None if the log is an external broker's."""
    own_broker = services.parts().own_broker
    with contextlib.closing(waiting.new_waiter(waiting.client_socket(request.environ))) as waiter:
        try:
            return _count(own_broker.stored_events(identity.user_id, message_id, waiter), message_id) - 1
        except NotFound:
            return None


def _count(stored: Iterator[Event | None], message_id: str) -> int:
    encoder = WorkflowEncoder(message_id, {}, Sent.NOTHING)
    relay = reply_stream.new_relay(encoder)
    count = 0
    with contextlib.suppress(Draining):
        for event in number(relay(_unfinished(stored)), encoder, 0):
            count += event is not None
    return count


def _unfinished(stored: Iterator[Event | None]) -> Iterator[Event | None]:
    """Ends as at a drain, after which a reply continues elsewhere: a plain end would be an error."""
    yield from stored
    raise Draining
