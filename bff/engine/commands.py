"""What the bundled engine does on command: for people who build a browser against it and need to see it fail."""

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from bff import events
from bff.agents.echo import spread, words
from bff.ops.hub import Watch

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

Contents = Iterator[dict[str, Any] | None]
"""Of the engine's events; None where there is nothing yet."""
Do = Callable[[Watch], Contents]


def command(message: str) -> Do | None:
    """What to do for a message that is a command, None when it is none."""
    match = re.fullmatch(r"/([a-z]+)(?:\s+(.*))?", message.strip(), re.DOTALL)
    if not match:
        return None
    name, rest = match[1], match[2] or ""
    do = _COMMANDS.get(name)
    return do(rest) if do else None


def progress(pieces: Iterator[str | None]) -> Contents:
    """Pieces as events, and their sum as the answer."""
    text = ""
    for piece in pieces:
        if piece is not None:
            text += piece
            yield {"type": "progress", "text": piece}
        else:
            yield None
    yield complete(text)


def complete(text: str) -> dict[str, Any]:
    return {"type": "complete", "response": events.response([text], "en")}


def _slow(rest: str) -> Do:
    seconds, text = _number(rest, LONGEST_SECONDS)
    pieces = [*words(text)] or ["slow"]
    return lambda watch: progress(spread(pieces, seconds / max(1, len(pieces) - 1), watch))


def _error(_: str) -> Do:
    said: list[dict[str, Any]] = [
        {"type": "progress", "text": "This goes "},
        {"type": "error", "error": "The engine said /error."},
    ]
    return lambda _: iter(said)


def _cut(_: str) -> Do:
    def say(watch: Watch) -> Contents:
        yield {"type": "progress", "text": "This breaks "}
        yield None
        watch.cut()

    return say


def _silence(rest: str) -> Do:
    seconds, _ = _number(rest, LONGEST_SECONDS)

    def pieces(watch: Watch) -> Iterator[str | None]:
        yield from watch.pause(seconds)
        yield f"That were {seconds:g} seconds."

    return lambda watch: progress(pieces(watch))


def _big(rest: str) -> Do:
    kib, _ = _number(rest, LARGEST_KIB)
    line = "All work and no play makes Jack a dull boy. " * 24
    return lambda _: progress(iter([(line[:1023] + "\n") * int(kib)]))


def _unicode(_: str) -> Do:
    return lambda watch: progress(spread(words(UNICODE), 0, watch))


def _tool(_: str) -> Do:
    text = "For God so loved the world."
    said: list[dict[str, Any]] = [
        {"type": "status", "message": "Executing 1 tool(s)..."},
        {"type": "tool_use", "tool": "fetch_scripture", "input": {"reference": "John 3:16"}},
        {"type": "tool_result", "tool": "fetch_scripture", "result": {"text": text}},
        {"type": "progress", "text": text},
        complete(text),
    ]
    return lambda _: iter(said)


def _help(_: str) -> Do:
    return lambda _: progress(iter([HELP]))


def _number(rest: str, most: int) -> tuple[float, str]:
    first, _, text = rest.partition(" ")
    number = float(first) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", first) else 1.0
    return min(number, float(most)), text


_COMMANDS: Final[dict[str, Callable[[str], Do]]] = {
    "slow": _slow,
    "error": _error,
    "cut": _cut,
    "silence": _silence,
    "big": _big,
    "unicode": _unicode,
    "tool": _tool,
    "help": _help,
}
