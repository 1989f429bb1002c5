"""What the bundled engine keeps of its users: turns and preferences, in memory, the longest unused forgotten first."""

import threading
import uuid
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, NamedTuple

USERS_MOST: Final = 1000
TURNS_MOST: Final = 200
"""Of one user."""
TEXT_MOST: Final = 4000
"""Characters kept of a message, and of an answer: a page of 50 turns stays below what the BFF reads."""
CHARACTERS_MOST: Final = 8_000_000
"""Of all users together."""


class Owner(NamedTuple):
    org: str
    user_id: str


class Turn(NamedTuple):
    id: str
    user_message: str
    assistant_response: str
    created_at: str
    spoken: bool

    @property
    def size(self) -> int:
        return len(self.user_message) + len(self.assistant_response)


def new_turn(message: str, answer: str, *, spoken: bool) -> Turn:
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Turn(uuid.uuid4().hex, message[:TEXT_MOST], answer[:TEXT_MOST], now, spoken)


@dataclass
class _Kept:
    turns: deque[Turn] = field(default_factory=deque)
    language: str = ""


class Memory:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users: OrderedDict[Owner, _Kept] = OrderedDict()
        self._characters = 0

    def keep(self, owner: Owner, turn: Turn) -> None:
        with self._lock:
            kept = self._of(owner)
            kept.turns.append(turn)
            self._characters += turn.size
            if len(kept.turns) > TURNS_MOST:
                self._characters -= kept.turns.popleft().size
            self._forget()

    def turns(self, owner: Owner) -> list[Turn]:
        """Oldest first."""
        with self._lock:
            kept = self._users.get(owner)
            return list(kept.turns) if kept is not None else []

    def language(self, owner: Owner) -> str:
        """Two letters; "" when none was chosen."""
        with self._lock:
            kept = self._users.get(owner)
            return kept.language if kept is not None else ""

    def choose(self, owner: Owner, language: str) -> None:
        with self._lock:
            self._of(owner).language = language
            self._forget()

    def _of(self, owner: Owner) -> _Kept:
        kept = self._users.setdefault(owner, _Kept())
        self._users.move_to_end(owner)
        return kept

    def _forget(self) -> None:
        while len(self._users) > USERS_MOST or self._characters > CHARACTERS_MOST:
            _, kept = self._users.popitem(last=False)
            self._characters -= sum(turn.size for turn in kept.turns)
