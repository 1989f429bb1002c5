"""/v1: the same chat, for clients of OpenAI's. Who asks is known as everywhere; where that is by a bearer, it is their key."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from flask import Blueprint, Response, jsonify, request

from bff import message_ids, messages
from bff.agents import BODY_CHARACTERS, Said
from bff.agents.answer import Reply
from bff.agents.broker import Broker
from bff.errors import NotFound, ReaderLeft, TooLarge, detached
from bff.following import Answer
from bff.identity import Identity
from bff.messages import ChatRequest
from bff.ops import hub
from bff.ops.streams import Slot
from bff.protocols import openai
from bff.protocols.openai import OPENAI, OpenAiWords
from bff.routes import door, telling
from bff.sse import Event

bp = Blueprint("openai", __name__, url_prefix="/v1")

DEFAULT: Final = "default"
"""The model that answers through the broker; the agents have their own names."""


@bp.post("/chat/completions")
def complete() -> Response:
    identity, parts = door.identity(), door.parts()
    asked = OPENAI.asked(door.body())
    _check_model(asked.about["model"])
    message = messages.parse(asked.body, request.headers.get("Idempotency-Key"))
    parts.rate.count(identity.user_id)
    with parts.streams.enter(identity.user_id) as slot:
        if asked.about["model"] == DEFAULT:
            message_id, answer = _left(message, identity)
        else:
            message_id = message_ids.new_id(identity.org, identity.user_id)
            history = _history(asked.about["history"])
            answer = Reply(parts.agents[asked.about["model"]], history, identity, parts.settings.answer_max_seconds)
        about = {"model": asked.about["model"], "created": int(time.time())}
        if not asked.about["stream"]:
            return _whole(answer, message_id, slot, about)
        words = OpenAiWords(message_id, about, told=False)
        response = telling.stream(answer, message_id, slot, OPENAI, words, kind="v1")
        if isinstance(answer, Reply):
            del response.headers["Location"]  # It is kept nowhere.
        return response


def _history(said: Sequence[tuple[str, str]]) -> list[Said]:
    """Raises TooLarge for more than any agent is given."""
    if sum(len(text) for _, text in said) > BODY_CHARACTERS:
        raise TooLarge("messages: too much for an agent.")
    return [Said("user" if role == "user" else "assistant", text) for role, text in said]


def _left(message: ChatRequest, identity: Identity) -> tuple[str, Answer]:
    """With the broker, whose engine remembers what was said before."""
    parts = door.parts()
    until = parts.broker.opening()
    # Who leaves here cannot come back, and has no other way to say stop.
    content = telling.for_broker(message, parts.settings) | {"on_disconnect": "cancel"}
    receipt = parts.broker.enqueue(identity, content, until)
    return receipt.message_id, parts.broker.follow(identity.user_id, receipt.message_id, until)


@bp.get("/models")
def models() -> Response:
    door.identity()
    return jsonify(openai.models(_models()))


@bp.get("/models/<path:name>")
def model(name: str) -> Response:
    door.identity()
    _check_model(name)
    return jsonify(openai.model(name))


@bp.errorhandler(Exception)
def _refuse(error: Exception) -> Response:
    problem = door.problem_of(error)
    response = jsonify(openai.error(problem))
    response.status_code = problem.status
    if problem.retry_after is not None:
        response.headers["Retry-After"] = str(problem.retry_after)
    return response


def _models() -> tuple[str, ...]:
    return DEFAULT, *(name for name in door.parts().agents if name != Broker.id)


def _check_model(name: str) -> None:
    if name not in _models():
        raise NotFound("There is no such model here.")


def _whole(answer: Answer, message_id: str, slot: Slot, about: Mapping[str, Any]) -> Response:
    """Waits for the answer's end. Raises what broke it, with a status of its own."""
    door.hold(slot)
    told = telling.tell(answer, message_id, kind="v1")
    watch = hub.watch(hub.browser(request.environ), half_open=False)
    try:
        slot.wait_at(watch)
        last = _last(told.say(watch))
    except ReaderLeft:
        return Response(status=ReaderLeft.status)
    finally:
        watch.close()
        door.note(told.end())
    if told.problem is not None:
        raise detached(told.problem)
    response = jsonify(openai.completion(message_id, about, last))
    response.headers["X-Message-ID"] = message_id
    return response


def _last(said: Iterator[Event | None]) -> str:
    """The data of the last event. Raises ReaderLeft."""
    last = ""
    for event in said:
        if event is not None:
            last = event.data
    return last
