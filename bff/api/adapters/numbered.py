"""Numbers the events of a reply, for clients that resume after the number of events they have read.

Every reader of a reply counts alike, as the events only depend on the reply's log and on where the encoder starts. So a reader
that resumes gets the reply encoded from its start, without the events before the requested number: the events are exactly
those that it would have read on one connection, even if it was disconnected between two events of one log entry.
"""

from collections.abc import Iterable, Iterator

from bff.api.adapters.base import EventEncoder, encode
from bff.http.sse import Event


def number(source: Iterable[Event | None], encoder: EventEncoder, first: int) -> Iterator[Event | None]:
    """Encodes each event, with its number as its id, and passes each None on. `first`: the number of the first one to send."""
    count, preamble = 0, encoder.preamble
    for event in source:
        if event is None:
            yield None
            continue
        _, encoded = encode(event, encoder)
        for data in [*preamble, *encoded] if encoded else []:
            preamble = []
            if count >= first:
                yield Event("", data, str(count))
            count += 1
