"""Stored responses, on SQLite and PostgreSQL."""

from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select

from bff.db.models import Conversation, Message
from bff.db.response_queries import PreviousResponseNotFound
from bff.db.responses import InputItem, NewResponse, ResponseStore
from bff.db.store import ConversationStore
from bff.errors import IdempotencyConflict, InvalidRequest, NotFound
from bff.upstream.output import OutputBlock
from tests.live import in_parallel

ADA, EVE = "ada", "eve"


@pytest.fixture
def store(database) -> ResponseStore:
    return ResponseStore(database, 1000)


def new(content: str = "q", previous_id: UUID | None = None, response_id: UUID | None = None, **fields) -> NewResponse:
    uuid = response_id or uuid4()
    items = [InputItem("user", [content])]
    return NewResponse(uuid, f"{uuid}.a.b", "echo", content, {"instructions": None, **fields}, {}, items, previous_id)


def answered(store: ResponseStore, content: str, previous_id: UUID | None = None, owner: str = ADA) -> UUID:
    row, _ = store.create(owner, new(content, previous_id))
    store.finish(owner, row.id, [OutputBlock("text", content.upper())], None, truncated=False)
    return row.id


def history(store: ResponseStore, content: str, previous_id: UUID | None) -> list[str]:
    row, _ = store.create(ADA, new(content, previous_id))
    return [message.content for message in store.task(ADA, row.id).history]


def rows(database) -> list[int]:
    """The numbers of conversations and messages."""
    return database.read(
        lambda session: [session.scalar(select(func.count()).select_from(table)) for table in (Conversation, Message)]
    )


def test_a_chain_forks(store):
    first = answered(store, "a")
    second = answered(store, "b", first)
    answered(store, "c", first)

    assert history(store, "d", second) == ["a", "A", "b", "B", "d"]
    assert history(store, "e", first) == ["a", "A", "e"]
    assert [message.content for message in store.history(ADA, second, 0)] == ["a", "A", "b", "B"]


def test_instructions_come_first(store):
    row, _ = store.create(ADA, new("q", instructions="Be brief."))

    assert [message.role for message in store.task(ADA, row.id).history] == ["system", "user"]


def test_the_history_is_limited_and_does_not_begin_with_a_reply(database):
    store = ResponseStore(database, 10)
    first = answered(store, "aaa")
    second = answered(store, "bb", first)

    assert history(store, "c", second) == ["bb", "BB", "c"]
    assert history(store, "c" * 50, second) == ["c" * 50]


def test_output_is_stored_once_with_its_blocks(store):
    blocks = [
        OutputBlock("reasoning", "hm"),
        OutputBlock("text", "a"),
        OutputBlock("reasoning", "so"),
        OutputBlock("text", "bc"),
    ]
    row, _ = store.create(ADA, new())
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    store.finish(ADA, row.id, blocks, usage, truncated=True)
    store.finish(ADA, row.id, [OutputBlock("text", "another")], None, truncated=False)
    store.end(ADA, row.id, "failed", "interrupted")

    stored = store.get(ADA, row.id)
    assert (store.blocks(stored), stored.usage, stored.status, stored.completed_at) == (blocks, usage, "incomplete", None)
    assert store.task(ADA, row.id).blocks == blocks


def test_an_end_is_recorded_once(store):
    row, _ = store.create(ADA, new())
    store.end(ADA, row.id, "failed", "upstream_error")
    store.end(ADA, row.id, "cancelled")

    assert [store.get(ADA, row.id).status, store.get(ADA, row.id).error_code] == ["failed", "upstream_error"]
    with pytest.raises(InvalidRequest):
        store.create(ADA, new("next", row.id))


def test_input_items_keep_their_parts(store):
    items = [InputItem("developer", ["x"]), InputItem("assistant", ["one\ntwo", "", "three"]), InputItem("user", ["four"])]
    row, _ = store.create(ADA, new()._replace(items=items))

    found = store.input_items(ADA, row.id)
    assert [(item.role, item.parts) for item in found] == [(item.role, item.parts) for item in items]
    assert None not in [item.id for item in found]


def test_a_deleted_response_leaves_the_rest_of_its_chain(store, database):
    first = answered(store, "a")
    second = answered(store, "b", first)
    third = answered(store, "c", second)
    fourth = answered(store, "d", second)
    store.delete(ADA, second)

    assert history(store, "e", third) == ["a", "A", "c", "C", "e"]
    assert history(store, "e", fourth) == ["a", "A", "d", "D", "e"]
    with pytest.raises(PreviousResponseNotFound):
        store.create(ADA, new("f", second))
    store.delete(ADA, first)
    assert history(store, "e", third) == ["c", "C", "e"]


def test_the_last_response_takes_its_conversation_along(store, database):
    first = answered(store, "a")
    second = answered(store, "b", first)
    store.delete(ADA, first)
    assert rows(database) == [1, 2]
    store.delete(ADA, second)

    assert rows(database) == [0, 0]


def test_an_owner_finds_only_their_own(store):
    response_id = answered(store, "a")

    for call in (store.get, store.input_items, store.task, store.delete):
        with pytest.raises(NotFound):
            call(EVE, response_id)
    with pytest.raises(PreviousResponseNotFound):
        store.create(EVE, new("b", response_id))
    with pytest.raises(PreviousResponseNotFound):
        store.history(EVE, response_id, 0)


def test_the_same_id_is_one_response(store, database):
    response_id = uuid4()
    created = in_parallel(5, lambda _: store.create(ADA, new("q", None, response_id)))

    assert sorted(is_new for _, is_new in created) == [False] * 4 + [True]
    assert rows(database) == [1, 1]
    with pytest.raises(IdempotencyConflict):
        store.create(ADA, new("another", None, response_id))


def test_responses_are_not_listed(store, database):
    answered(store, "a")

    assert ConversationStore(database).recent(ADA, 10).rows == []
