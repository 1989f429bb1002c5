"""Any sequence of questions, edits, replies, switches and deletions, compared with a model of the tree."""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bff.db.database import Database
from bff.db.models import Message
from bff.db.replies import Replies
from bff.db.store import ConversationStore, Parent
from bff.errors import NotFound

LIMIT = 3
"""Messages per page."""
indexes = st.integers(0, 11)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask")),
        st.tuples(st.just("branch"), st.none() | indexes),
        st.tuples(st.just("edit"), indexes),
        st.tuples(st.just("change"), indexes),
        st.tuples(st.just("reply"), indexes),
        st.tuples(st.just("reply")),
        st.tuples(st.just("regenerate"), indexes),
        st.tuples(st.just("switch"), st.none() | indexes),
        st.tuples(st.just("delete")),
    ),
    min_size=1,
    max_size=16,
)


@dataclass
class Model:
    """The branch that leads to each message, as it was when its question was sent or its reply was received."""

    paths: dict[UUID, list[UUID]] = field(default_factory=dict)
    texts: dict[UUID, str] = field(default_factory=dict)
    questions: list[UUID] = field(default_factory=list)
    answered: set[UUID] = field(default_factory=set)
    current: UUID | None = None

    def path(self, message_id: UUID | None) -> list[UUID]:
        return [] if message_id is None else self.paths[message_id]

    def parent(self, message_id: UUID) -> UUID | None:
        return self.paths[message_id][-2] if len(self.paths[message_id]) > 1 else None

    def leaves(self) -> list[UUID]:
        return [id_ for id_ in self.paths if not any(id_ in path[:-1] for path in self.paths.values())]

    def leaf_below(self, message_id: UUID | None) -> UUID | None:
        return ([None] + [leaf for leaf in self.leaves() if message_id is None or message_id in self.paths[leaf]])[-1]

    def ask(self, message_id: UUID, text: str, parent: UUID | None) -> None:
        self.paths[message_id] = [*self.path(parent), message_id]
        self.texts[message_id] = text
        self.questions.append(message_id)
        self.current = message_id

    def reply(self, message_id: UUID, text: str, question: UUID) -> None:
        is_first, is_followed = question not in self.answered, question not in self.leaves()
        is_current = question in self.path(self.current)
        self.answered.add(question)
        self.texts[message_id] = text
        if is_first and is_followed:
            for path in self.paths.values():
                if question in path[:-1]:
                    path.insert(path.index(question) + 1, message_id)
        self.paths[message_id] = [*self.paths[question], message_id]
        waits = self.current in self.questions and self.current != question
        if is_current and not waits and not (is_first and is_followed):
            self.current = message_id


class Chat:
    """A conversation in the database and its model. Texts are numbered."""

    def __init__(self, database: Database) -> None:
        self._store, self._replies = ConversationStore(database), Replies(database, 10**6)
        self._count = 0
        self._begin()

    def _begin(self) -> None:
        self._id, self._model = self._store.create("ada").id, Model()

    def _text(self) -> str:
        self._count += 1
        return str(self._count)

    def ask(self) -> None:
        self._ask(self._model.current)

    def branch(self, index: int | None) -> None:
        parent = None if index is None else self._message(index)
        self._ask(parent, Parent(parent))

    def edit(self, index: int) -> None:
        """As a sibling."""
        if self._model.questions:
            parent = self._model.parent(self._question(index))
            self._ask(parent, Parent(parent))

    def _ask(self, expected_parent: UUID | None, *parent: Parent) -> None:
        text = self._text()
        self._model.ask(self._store.add_message("ada", self._id, text, *parent).id, text, expected_parent)

    def change(self, index: int) -> None:
        """In place."""
        if message_id := self._message(index):
            self._model.texts[message_id] = self._text()
            self._store.edit_message("ada", self._id, message_id, self._model.texts[message_id])

    def reply(self, index: int | None = None) -> None:
        """To the last question of the current branch, or to another one; unless the question has a reply already."""
        questions = [id_ for id_ in self._model.path(self._model.current) if id_ in self._model.questions]
        if not questions:
            return
        question_id = questions[-1] if index is None else self._question(index)
        question = self._replies.question("ada", self._id, None if index is None else question_id, "")
        assert question.id == question_id
        if not question.answered:
            self._reply(question_id, question.version, "")

    def regenerate(self, index: int) -> None:
        if self._model.questions:
            question_id = self._question(index)
            self._reply(question_id, self._replies.question("ada", self._id, question_id, "").version, self._text())

    def _reply(self, question_id: UUID, version: int, regenerate: str) -> None:
        text = self._text()
        reply = self._replies.store("ada", self._id, question_id, version, regenerate, text)
        self._model.reply(reply.id, text, question_id)

    def switch(self, index: int | None) -> None:
        message_id = None if index is None else self._message(index)
        self._model.current = self._model.leaf_below(message_id)
        conversation = self._store.update("ada", self._id, {"current_message_id": message_id})
        assert conversation.current_message_id == self._model.current

    def delete(self) -> None:
        self._store.delete("ada", self._id)
        with pytest.raises(NotFound):
            self._store.all_messages("ada", self._id, LIMIT)
        self._begin()

    def _message(self, index: int) -> UUID | None:
        ids = [*self._model.paths]
        return ids[index % len(ids)] if ids else None

    def _question(self, index: int) -> UUID:
        return self._model.questions[index % len(self._model.questions)]

    def check(self) -> None:
        model = self._model
        assert {row.id: row.parent_id for row in self._pages(self._store.all_messages)} == {
            id_: model.parent(id_) for id_ in model.paths
        }
        assert self._store.get("ada", self._id).current_message_id == model.current
        assert self._branch() == self._expected(model.current)
        for leaf in model.leaves():
            self._store.update("ada", self._id, {"current_message_id": leaf})
            assert self._branch() == self._expected(leaf)
        for question in model.questions:
            history = self._replies.task("ada", self._id, question, "unused").history
            assert [message.content for message in history] == self._expected(question)

    def _expected(self, end: UUID | None) -> list[str]:
        return [self._model.texts[id_] for id_ in self._model.path(end)]

    def _branch(self) -> list[str]:
        return [row.edited_content or row.content for row in self._pages(self._store.messages)]

    def _pages(self, load: Any) -> list[Message]:
        rows, cursor = [], ""
        while cursor is not None:
            page = load("ada", self._id, LIMIT, cursor)
            rows += page.rows
            cursor = page.next_cursor
        return rows


def check_steps(database: Database, steps: list[tuple[Any, ...]]) -> None:
    chat = Chat(database)
    for name, *arguments in steps:
        getattr(chat, name)(*arguments)
    chat.check()


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_every_branch_reads_as_it_was_sent_and_received(database, steps):
    check_steps(database, steps)


@pytest.mark.live
@pytest.mark.timeout(120)
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_every_branch_reads_the_same_on_postgresql(database, steps):
    check_steps(database, steps)
