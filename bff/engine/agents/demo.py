"""Says the last user message back, and fails on command: for people who build a browser against it and need to see it fail."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from bff.auth.identity import Identity
from bff.engine.agents.base import Piece, last_user_message
from bff.engine.agents.echo import paced, words
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
Anything else is said back, word by word."""

UNICODE: Final = (
    'Ἐν ἀρχῇ, בְּרֵאשִׁית, 日本語, 👨‍👩‍👧‍👦🙏🏽, é́, line\u2028separator\u2029, next\u0085line, tab\there, back\\slash, "quotes"'
)
LONGEST_SECONDS: Final = 3600
LARGEST_KIB: Final = 8 * 1024

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
        if (command := command_of(text)) is not None:
            return command(waiter)
        return paced(words(text), self._word_seconds, waiter)


def command_of(message: str) -> Command | None:
    """What to do for a message that is a command, None when it is none."""
    match = re.fullmatch(r"/([a-z]+)(?:\s+(.*))?", message.strip(), re.DOTALL)
    if not match:
        return None
    command = _COMMANDS.get(match[1])
    return command(match[2] or "") if command else None


def _slow(rest: str) -> Command:
    seconds, text = _number(rest, LONGEST_SECONDS)
    pieces = [*words(text)] or ["slow"]
    return lambda waiter: paced(pieces, seconds / max(1, len(pieces) - 1), waiter)


def _error(_: str) -> Command:
    def say(_: Waiter) -> Pieces:
        yield "This goes "
        raise UpstreamError("The engine said /error.")

    return say


def _cut(_: str) -> Command:
    def say(waiter: Waiter) -> Pieces:
        yield "This breaks "
        yield None
        waiter.abort()
        raise ClientDisconnected

    return say


def _silence(rest: str) -> Command:
    seconds, _ = _number(rest, LONGEST_SECONDS)

    def say(waiter: Waiter) -> Pieces:
        yield from waiter.sleep(seconds)
        yield f"That were {seconds:g} seconds."

    return say


def _big(rest: str) -> Command:
    kib, _ = _number(rest, LARGEST_KIB)
    line = "All work and no play makes Jack a dull boy. " * 24
    return lambda _: iter([(line[:1023] + "\n") * int(kib)])


def _unicode(_: str) -> Command:
    return lambda waiter: paced(words(UNICODE), 0, waiter)


def _tool(_: str) -> Command:
    text = "For God so loved the world."
    said: list[Piece] = [
        {"type": "status", "message": "Executing 1 tool(s)..."},
        {"type": "tool_use", "tool": "fetch_scripture", "input": {"reference": "John 3:16"}},
        {"type": "tool_result", "tool": "fetch_scripture", "result": {"text": text}},
        text,
    ]
    return lambda _: iter(said)


def _help(_: str) -> Command:
    return lambda _: iter([HELP])


def _number(rest: str, most: int) -> tuple[float, str]:
    first, _, text = rest.partition(" ")
    number = float(first) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", first) else 1.0
    return min(number, float(most)), text


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
