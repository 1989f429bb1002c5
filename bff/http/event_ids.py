"""Event ids that clients send back in `Last-Event-ID`: which ids are resumable, and where a broker's stream is reopened.

`EventSource` sends the id as UTF-8 bytes in a header: https://html.spec.whatwg.org/#the-eventsource-interface.
"""

import re
from typing import Final

from bff.errors import InvalidRequest
from bff.http import header_text

MAX_BYTES: Final = 256
"""As UTF-8. Servers limit a header line, most of them to 8 KiB."""
_NOT_HEADER_SAFE: Final = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffd]")
"""Servers strip spaces at a header's ends and reject control characters. U+FFFD replaces bytes that were not UTF-8."""


def resumable(event_id: str) -> bool:
    """Whether a reader can send the id back unchanged."""
    return 0 < len(event_id.encode("utf-8", "replace")) <= MAX_BYTES and not _NOT_HEADER_SAFE.search(event_id)


def from_reader(header: str, query: str) -> str:
    """The request's last event id, "" for none. `header` is `Last-Event-ID` as WSGI passes it.

    Raises InvalidRequest for an id that we cannot have sent.
    """
    try:
        event_id = header_text.decode(header) or query
    except UnicodeError:
        raise InvalidRequest("Last-Event-ID must be UTF-8.") from None
    if event_id and not resumable(event_id):
        raise InvalidRequest("The last event id is not valid.")
    return event_id


class ReadPosition:
    """How far a stream of numbered events was read: after which id to reopen it, and which events to skip then.

    A stream can only be reopened after a resumable id. Events that were read after the last resumable one arrive again, in
    the same order, and are skipped.
    """

    def __init__(self, after: str = "") -> None:
        self.after = after
        """The last resumable id; "" for the start."""
        self._read_since = 0
        """Ids read since `after`, none of them resumable."""
        self._to_skip = 0
        self._current = after

    def reopened(self) -> None:
        self._to_skip, self._current = self._read_since, self.after

    def is_new(self, event_id: str) -> bool:
        """Whether an event was not read before; call it once per event. `event_id` is the last event id in force."""
        if event_id in {"", self._current}:
            return self._to_skip == 0  # The event has no id of its own.
        self._current = event_id
        if resumable(event_id):
            self.after, self._read_since, self._to_skip = event_id, 0, 0
        elif self._to_skip:
            self._to_skip -= 1
            return False
        else:
            self._read_since += 1
        return True
