"""The output of a reply in blocks: runs of text and of reasoning, in the order in which they were produced."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, Final, Literal, NamedTuple, TypeVar

T = TypeVar("T")
Events = Generator[dict[str, Any] | None, None, T]
BlockKind = Literal["text", "reasoning"]
KINDS: Final[Mapping[Any, BlockKind]] = {"progress": "text", "reasoning": "reasoning"}
"""By the type of the engine's event."""
_USAGE: Final = ("prompt_tokens", "completion_tokens", "total_tokens")


class OutputBlock(NamedTuple):
    kind: BlockKind
    text: str


class OutputBlocks:
    """Collects the output of a reply."""

    def __init__(self) -> None:
        self._blocks: list[tuple[BlockKind, list[str]]] = []

    def add(self, content: Mapping[str, Any]) -> BlockKind | None:
        """Adds an event's text. Returns the kind of its block; None if the event has no output."""
        kind, text = KINDS.get(content.get("type")), content.get("text")
        if kind is None or not isinstance(text, str) or not text:
            return None
        if not self._blocks or self._blocks[-1][0] != kind:
            self._blocks.append((kind, []))
        self._blocks[-1][1].append(text)
        return kind

    def collect(self, reply: Events[T]) -> Events[T]:
        """Passes the events of `reply` on, and adds each. Returns what `reply` returns."""
        with closing(reply):
            while True:
                try:
                    content = next(reply)
                except StopIteration as end:
                    result: T = end.value
                    return result
                if content is not None:
                    self.add(content)
                yield content

    def __len__(self) -> int:
        return len(self._blocks)

    def __getitem__(self, index: int) -> OutputBlock:
        kind, texts = self._blocks[index]
        return OutputBlock(kind, join_surrogates("".join(texts)))

    def all(self) -> list[OutputBlock]:
        return [self[index] for index in range(len(self))]


def as_events(blocks: Sequence[OutputBlock]) -> Iterator[dict[str, Any]]:
    for block in blocks:
        yield {"type": "progress" if block.kind == "text" else "reasoning", "text": block.text}


def without_reasoning(blocks: Sequence[OutputBlock]) -> list[OutputBlock]:
    """Text that the reasoning separated becomes one block."""
    text = "".join(block.text for block in blocks if block.kind == "text")
    return [OutputBlock("text", text)] if text else []


def usage_of(response: Mapping[str, Any]) -> dict[str, int] | None:
    """The tokens in the response of a `complete` event or of a model, as OpenAI names them, without details.

    None unless the model reported all of them.
    """
    usage = response.get("usage")
    if not isinstance(usage, dict) or not all(type(usage.get(name)) is int for name in _USAGE):
        return None
    return {name: usage[name] for name in _USAGE}


def join_surrogates(text: str) -> str:
    """Joins surrogate pairs whose halves came in two pieces; replaces lone ones, which UTF-8 cannot encode."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
