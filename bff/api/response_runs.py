"""Responses of /v1/responses as messages in the bundled broker's queue: start, find and stop them.

The database has a stored response's request and its output. Until it has ended, the queue knows whether it waits or runs, and
the log of its message how it ended.
"""

import contextlib
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any, Final, NamedTuple
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

from bff.api import models, services
from bff.api.adapters import response_objects as objects
from bff.api.adapters.response_objects import End, Head
from bff.api.adapters.responses_request import ResponseRequest
from bff.api.conversation_replies import OWN_GROUP
from bff.auth.identity import Identity
from bff.db.models import StoredResponse
from bff.db.responses import UNFINISHED, InputItem, NewResponse
from bff.errors import ChatError, Expired, Interrupted, InvalidRequest, NotFound
from bff.http.waiting import Waiter
from bff.upstream import events, message_ids
from bff.upstream.agents import BROKER
from bff.upstream.messages import PRINTABLE
from bff.upstream.output import without_reasoning
from bff.upstream.reconnect import Reply

ENQUEUE_SECONDS: Final = 60.0
"""A response without a message in the queue is being enqueued for at most this long; later it is lost."""
STOP_SECONDS: Final = 5.0
"""How long a cancellation waits for the end of the response."""


class StartedResponse(NamedTuple):
    head: Head
    message_id: str
    has_ended: bool = False
    """Whether an earlier request with the same key started it, and it has ended."""


class _Plan(NamedTuple):
    """A new response, before anything is stored or enqueued."""

    uuid: UUID
    request: ResponseRequest
    agent_id: str
    items: list[InputItem]
    options: dict[str, Any]

    @property
    def group(self) -> str:
        return _group(self.uuid, self.agent_id)

    @property
    def previous_id(self) -> UUID | None:
        """An id that we cannot have made is found as little as an unknown one."""
        text = self.request.previous_response_id
        return None if text is None else parse_id(text) or uuid4()

    def content(self) -> dict[str, Any]:
        """For `BrokerClient.enqueue`, without what the agent gets."""
        return {
            "message": "",
            "handler": "bundled",
            "group": self.group,
            "message_uuid": str(self.uuid),
            "client_message_id": str(self.uuid),
            "agent_id": self.agent_id,
            "restartable": False,
            "on_busy": "enqueue",
            "on_disconnect": "continue" if self.request.background else "cancel",
        }


def start(identity: Identity, request: ResponseRequest, key: str | None) -> StartedResponse:
    """Stores the response, if it is to be stored, and enqueues it. `key`: the Idempotency-Key.

    Raises InvalidRequest, NotFound, TooLarge, IdempotencyConflict, Expired, TooManyRequests, an UpstreamFailure.
    """
    agent_id = models.agent_id(request.model)
    features = services.parts().agents[agent_id].features
    request.check(features)
    plan = _Plan(_uuid(identity, key), request, agent_id, request.items(features), request.options(features))
    services.parts().rate.acquire(identity.user_id)
    return _start_stored(identity, plan) if request.is_stored else _start_unstored(identity, plan)


def _start_stored(identity: Identity, plan: _Plan) -> StartedResponse:
    store = services.parts().responses
    message_id = message_ids.new_id(identity.org, identity.user_id, plan.group, plan.uuid)
    details = plan.request.digest, plan.request.fields(), plan.options, plan.items, plan.previous_id
    row, is_new = store.create(identity.owner, NewResponse(plan.uuid, message_id, plan.agent_id, *details))
    if row.status != UNFINISHED:
        return StartedResponse(head(row), row.message_id, has_ended=True)
    try:
        _enqueue(identity, plan.content() | {"response_id": str(plan.uuid)})
    except ChatError:
        if is_new:
            with contextlib.suppress(ChatError):
                store.delete(identity.owner, plan.uuid)
        raise
    return StartedResponse(head(row), row.message_id)


def _start_unstored(identity: Identity, plan: _Plan) -> StartedResponse:
    instructions, store = plan.request.instructions, services.parts().responses
    messages = [{"role": "system", "content": instructions}] if instructions else []
    if plan.previous_id is not None:
        size = sum(len(item.text) for item in plan.items)
        messages += [message.as_json() for message in store.history(identity.owner, plan.previous_id, size)]
    messages += [{"role": item.role, "content": item.text} for item in plan.items]
    message_id = _enqueue(identity, plan.content() | {"messages": messages, "options": plan.options})
    return StartedResponse(Head(plan.uuid, int(time.time()), plan.request.fields()), message_id)


def _enqueue(identity: Identity, content: dict[str, Any]) -> str:
    broker = services.parts().own_broker
    return broker.enqueue(identity, content, broker.open_deadline()).message_id


def follow(identity: Identity, message_id: str) -> Reply:
    """The events of a response, from the first one. Raises Expired if they are no longer kept, an UpstreamFailure."""
    broker = services.parts().own_broker
    try:
        reply = broker.resume(identity.user_id, message_id, broker.open_deadline(), "")
    except (NotFound, Expired):
        reply = None
    if reply is None:
        raise Expired("The events of this response are no longer kept. Retrieve it without stream.")
    return reply


def snapshot(identity: Identity, response_id: str, new_waiter: Callable[[], Waiter]) -> dict[str, Any]:
    """The response object as it is now. Raises NotFound, an UpstreamFailure."""
    row = find(identity, response_id)
    if row.status == UNFINISHED:
        status = _status_in_queue(identity, row)
        if status is not None:
            return objects.response(head(row), End(status))
        row = find(identity, response_id)  # It may have ended meanwhile.
    if row.status == UNFINISHED:
        row = _record_end(identity, row, new_waiter)
    return response_object(row)


def cancel(identity: Identity, response_id: str, new_waiter: Callable[[], Waiter]) -> dict[str, Any]:
    """Stops a response that has not ended, and returns its object. Raises NotFound, an UpstreamFailure."""
    row = find(identity, response_id)
    if row.status == UNFINISHED:
        _stop(identity, row)
        with closing(new_waiter()) as waiter:
            _last_event(identity, row, waiter, STOP_SECONDS)
    return snapshot(identity, response_id, new_waiter)


def delete(identity: Identity, response_id: str) -> None:
    """Raises NotFound, an UpstreamFailure."""
    row = find(identity, response_id)
    if row.status == UNFINISHED:
        _stop(identity, row)
    services.parts().responses.delete(identity.owner, row.id)


def find(identity: Identity, response_id: str) -> StoredResponse:
    """Raises NotFound."""
    if (uuid := parse_id(response_id)) is None:
        raise NotFound("There is no such response.")
    return services.parts().responses.get(identity.owner, uuid)


def head(row: StoredResponse) -> Head:
    return Head(row.id, int(row.created_at.timestamp()), row.fields)


def response_object(row: StoredResponse) -> dict[str, Any]:
    """Of a response that has ended."""
    error = objects.error(row.error_code) if row.status == "failed" else None
    completed_at = None if row.completed_at is None else int(row.completed_at.timestamp())
    blocks = services.parts().responses.blocks(row) if row.reply_id is not None else []
    output = blocks if services.parts().settings.relay_reasoning else without_reasoning(blocks)
    return objects.response(head(row), End(row.status, output, row.usage, error, completed_at))


def parse_id(response_id: str) -> UUID | None:
    """None for an id that we cannot have made."""
    text = response_id.removeprefix(objects.ID_PREFIX)
    try:
        uuid = UUID(hex=text)
    except ValueError:
        return None
    return uuid if response_id == f"{objects.ID_PREFIX}{uuid.hex}" else None


def _uuid(identity: Identity, key: str | None) -> UUID:
    """The same for the same key of a user. Raises InvalidRequest."""
    if key is None:
        return uuid4()
    if not PRINTABLE.fullmatch(key):
        raise InvalidRequest("Idempotency-Key: must be 1 to 128 printable characters.")
    return uuid5(NAMESPACE_URL, f"chat-bff:response:{identity.owner}\0{key}")


def _group(uuid: UUID, agent_id: str) -> str:
    """Responses run side by side; but an external broker processes one message of a user at a time."""
    return OWN_GROUP if agent_id == BROKER else f"response:{uuid}"


def _status_in_queue(identity: Identity, row: StoredResponse) -> str | None:
    """None if it neither waits nor runs."""
    runs = services.parts().own_broker.runs(identity.user_id, _group(row.id, row.agent_id)).active
    run = next((run for run in runs if run.message_id == row.message_id), None)
    if run is None:
        return None
    return "in_progress" if run.is_running or not row.fields["background"] else "queued"


def _stop(identity: Identity, row: StoredResponse) -> None:
    with contextlib.suppress(NotFound, Expired):
        services.parts().own_broker.stop(identity.user_id, row.message_id)


def _record_end(identity: Identity, row: StoredResponse, new_waiter: Callable[[], Waiter]) -> StoredResponse:
    """Of a response that has ended without output, and whose worker could not record it."""
    with closing(new_waiter()) as waiter:
        last = _last_event(identity, row, waiter, STOP_SECONDS)
    if last is None and time.time() - row.created_at.timestamp() < ENQUEUE_SECONDS:
        return row
    status = "cancelled" if last is not None and last.get("type") == "stopped" else "failed"
    code = "" if status == "cancelled" else str((last or {}).get("code", Interrupted.code))
    return services.parts().responses.end(identity.owner, row.id, status, code)


def _last_event(identity: Identity, row: StoredResponse, waiter: Waiter, seconds: float) -> dict[str, Any] | None:
    """The terminal event of the response's log, waiting for it; None if it does not come, or if there is no log."""
    with contextlib.suppress(Expired), closing(follow(identity, row.message_id)) as reply:
        deadline = time.monotonic() + seconds
        waiter.wake_at = deadline
        for event in reply.events(waiter):
            content = {} if event is None else events.parse_object(event.data)
            if content.get("type") in events.TERMINAL:
                return content
            if time.monotonic() >= deadline:
                break
    return None
