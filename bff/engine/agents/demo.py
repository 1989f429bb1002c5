"""An agent that repeats the last user message, or fails on command: for building and testing clients."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from bff.auth.identity import Identity
from bff.engine.agents.base import Piece, last_user_message
from bff.engine.agents.echo import paced, split_words
from bff.errors import ClientDisconnected, UpstreamError
from bff.http.waiting import Waiter
from bff.upstream.messages import ChatMessage

HELP: Final = """\
/slow N text – the text, evenly over N seconds
/error – an error
/cut – the connection breaks off in the middle
/silence N – nothing for N seconds, then an answer
/big N – an answer of N KiB
/unicode – what breaks careless readers
/tool – an answer with tool events in it
/help – this list
Anything else is repeated, word by word."""

UNICODE: Final = (
    'Ἐν ἀρχῇ, בְּרֵאשִׁית, 日本語, 👨‍👩‍👧‍👦🙏🏽, é́, line\u2028separator\u2029, next\u0085line, tab\there, back\\slash, "quotes"'
)
MAX_SECONDS: Final = 3600
MAX_KIB: Final = 8 * 1024

Pieces = Iterator[Piece]
Command = Callable[[Waiter], Pieces]


class Demo:
    id = "demo"
    name = "Demo"
    description = "Says your last message back, and does what /help lists."
    repeatable = True

    def __init__(self, word_seconds: float) -> None:
        self._word_seconds = word_seconds

    def stream(self, history: Sequence[ChatMessage], identity: Identity, waiter: Waiter) -> Pieces:
        text = last_user_message(history)
        if (command := parse_command(text)) is not None:
            return command(waiter)
        return paced(split_words(text), self._word_seconds, waiter)


def parse_command(message: str) -> Command | None:
    """The command that a message is, None for any other message."""
    match = re.fullmatch(r"/([a-z]+)(?:\s+(.*))?", message.strip(), re.DOTALL)
    if not match:
        return None
    command = _COMMANDS.get(match[1])
    return command(match[2] or "") if command else None


def _slow(arguments: str) -> Command:
    seconds, text = _parse_number(arguments, MAX_SECONDS)
    pieces = [*split_words(text)] or ["slow"]
    return lambda waiter: paced(pieces, seconds / max(1, len(pieces) - 1), waiter)


def _error(_: str) -> Command:
    def reply(_: Waiter) -> Pieces:
        yield "This goes "
        raise UpstreamError("The engine said /error.")

    return reply


def _cut(_: str) -> Command:
    def reply(waiter: Waiter) -> Pieces:
        yield "This breaks "
        yield None
        waiter.abort()
        raise ClientDisconnected

    return reply


def _silence(arguments: str) -> Command:
    seconds, _ = _parse_number(arguments, MAX_SECONDS)

    def reply(waiter: Waiter) -> Pieces:
        yield from waiter.sleep(seconds)
        yield f"Silent for {seconds:g} s."

    return reply


def _big(arguments: str) -> Command:
    kib, _ = _parse_number(arguments, MAX_KIB)
    line = "All work and no play makes Jack a dull boy. " * 24
    return lambda _: iter([(line[:1023] + "\n") * int(kib)])


def _unicode(_: str) -> Command:
    return lambda waiter: paced(split_words(UNICODE), 0, waiter)


def _tool(_: str) -> Command:
    text = "For God so loved the world."
    pieces: list[Piece] = [
        {"type": "status", "message": "Executing 1 tool(s)..."},
        {"type": "tool_use", "tool": "fetch_scripture", "input": {"reference": "John 3:16"}},
        {"type": "tool_result", "tool": "fetch_scripture", "result": {"text": text}},
        text,
    ]
    return lambda _: iter(pieces)


def _help(_: str) -> Command:
    return lambda _: iter([HELP])


def _parse_number(arguments: str, maximum: int) -> tuple[float, str]:
    """The number that comes first, 1 if there is none, and the text after it."""
    first, _, text = arguments.partition(" ")
    number = float(first) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", first) else 1.0
    return min(number, float(maximum)), text


_COMMANDS: Final[dict[str, Callable[[str], Command]]] = {
    "slow": _slow,
    "error": _error,
    "cut": _cut,
    "silence": _silence,
    "big": _big,
    "unicode": _unicode,
    "tool": _tool,
    "help": _help,
}
