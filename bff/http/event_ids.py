"""Event ids on their way back: which of a broker's ids a reader can return in `Last-Event-ID`, and where it is reopened.

`EventSource` sends the id as the UTF-8 bytes of a header: https://html.spec.whatwg.org/#the-eventsource-interface.
"""

import re
from typing import Final

from bff.errors import InvalidRequest

MAX_BYTES: Final = 256
"""As UTF-8. Servers limit a header line, most of them to 8 KiB."""
_LOST_IN_A_HEADER: Final = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffd]")
"""Spaces are stripped from a header's ends, control characters are refused. U+FFFD stands for bytes that were no UTF-8."""


def resumable(event_id: str) -> bool:
    """Whether a reader can send it back as it is."""
    return 0 < len(event_id.encode("utf-8", "replace")) <= MAX_BYTES and not _LOST_IN_A_HEADER.search(event_id)


def from_reader(header: str, query: str) -> str:
    """The last event id of a request, "" for none. `header` is `Last-Event-ID` as WSGI has it: bytes as Latin-1.

    Raises InvalidRequest for an id that we cannot have sent.
    """
    try:
        event_id = header.encode("latin-1").decode() or query
    except UnicodeError:
        raise InvalidRequest("Last-Event-ID must be UTF-8.") from None
    if event_id and not resumable(event_id):
        raise InvalidRequest("The last event id is none of ours.")
    return event_id


class ReadPosition:
    """How far a stream of numbered events was read: where to reopen it, and what is not new then.

    An id that is not resumable is no place to reopen at. Then the stream is reopened after the last id that is, and the
    ids that had followed it are skipped: a broker sends the same events again after the same id.
    """

    def __init__(self, after: str = "") -> None:
        self.after = after
        """The last resumable id; "" for the start."""
        self._followed = 0
        """Ids since `after`, none of them resumable."""
        self._to_skip = 0
        self._current = after

    def reopened(self) -> None:
        self._to_skip, self._current = self._followed, self.after

    def is_new(self, event_id: str) -> bool:
        """Whether an event was not read before; to be called once for each. `event_id` is the id in force."""
        if event_id in {"", self._current}:
            return self._to_skip == 0  # It has no id of its own.
        self._current = event_id
        if resumable(event_id):
            self.after, self._followed, self._to_skip = event_id, 0, 0
        elif self._to_skip:
            self._to_skip -= 1
            return False
        else:
            self._followed += 1
        return True
