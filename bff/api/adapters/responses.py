"""OpenAI's Responses stream: https://platform.openai.com/docs/api-reference/responses-streaming.

A reader's events are encoded from the first event of the log, wherever the reader continues: so each has the same
`sequence_number` for all readers, in each process and after a restart. The protocol has no events for tools run by the server
or for a stop; a stopped response ends with `response.incomplete` and the status "cancelled".
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from bff.api.adapters import response_objects as objects
from bff.api.adapters.base import Sent, is_truncated, responses
from bff.api.adapters.response_objects import End, Head
from bff.http.sse import Event
from bff.upstream import events
from bff.upstream.output import BlockKind, OutputBlock, OutputBlocks, usage_of

FROM_START: Final = -1
_DELTAS: Final = {"text": "output_text", "reasoning": "reasoning_text"}
"""In the names of events, by the kind of the block."""


class ResponseEncoder:
    def __init__(self, head: Head) -> None:
        self._head = head
        self._status = "queued" if head.fields["background"] else "in_progress"
        self._in_progress = False
        self._output = OutputBlocks()
        self._number = 0

    @property
    def sent(self) -> Sent:
        return Sent.of(text=len(self._output) > 0)

    def begin(self) -> list[dict[str, Any]]:
        """Before the first event of the log."""
        created = self._snapshot("response.created")
        return [created, self._snapshot("response.queued")] if self._status == "queued" else [created]

    def encode(self, content: dict[str, Any], *, in_log: bool) -> list[dict[str, Any]]:
        """`in_log`: the event is in the reply's log; others concern this reader alone."""
        kind = content.get("type")
        if kind == "error" and not in_log:
            return [self._reader_error(content)]
        started = self._start() if kind in events.TERMINAL or content.get("message") == events.PROCESSING else []
        match kind:
            case "progress" | "reasoning":
                return self._delta(content)
            case "complete":
                return [*started, *self._complete(content)]
            case "stopped":
                return [*started, self._end("response.incomplete", End("cancelled"))]
            case "error":
                error = objects.error(str(content.get("code", "")), str(content.get("error", "")))
                return [*started, self._end("response.failed", End("failed", error=error))]
        return started

    def _start(self) -> list[dict[str, Any]]:
        if self._in_progress:
            return []
        self._in_progress = True
        self._status = "in_progress"
        return [self._snapshot("response.in_progress")]

    def _delta(self, content: Mapping[str, Any]) -> list[dict[str, Any]]:
        earlier = len(self._output)
        kind = self._output.add(content)
        if kind is None:
            return []
        begun: list[dict[str, Any]] = []
        if len(self._output) > earlier:
            done = self._done(earlier - 1, "completed") if earlier else []
            begun = [*done, *self._start(), *self._added(OutputBlock(kind, ""))]
        return [*begun, self._in_item(f"response.{_DELTAS[kind]}.delta", kind, delta=content["text"])]

    def _added(self, block: OutputBlock) -> list[dict[str, Any]]:
        added = objects.item(self._head, self._index, block, "in_progress")
        return [
            self._event("response.output_item.added", output_index=self._index, item=added),
            self._in_item("response.content_part.added", block.kind, part=objects.part(block)),
        ]

    def _done(self, index: int, status: str) -> list[dict[str, Any]]:
        block = self._output[index]
        item = objects.item(self._head, index, block, status)
        return [
            self._in_item(f"response.{_DELTAS[block.kind]}.done", block.kind, index, text=block.text),
            self._in_item("response.content_part.done", block.kind, index, part=objects.part(block)),
            self._event("response.output_item.done", output_index=index, item=item),
        ]

    def _complete(self, content: dict[str, Any]) -> list[dict[str, Any]]:
        truncated = is_truncated(content)
        status = "incomplete" if truncated else "completed"
        has_text = any(block.kind == "text" for block in self._output.all())
        unsent = "" if has_text else "\n\n".join(responses(content))
        deltas = self._delta({"type": "progress", "text": unsent})
        done = self._done(self._index, status) if len(self._output) else []
        end = End(status, self._output.all(), usage_of(content["response"]), completed_at=_completed_at(content))
        return [*deltas, *done, self._end(f"response.{status}", end)]

    def _end(self, kind: str, end: End) -> dict[str, Any]:
        return self._event(kind, response=objects.response(self._head, end))

    def _snapshot(self, kind: str) -> dict[str, Any]:
        return self._end(kind, End(self._status))

    def _in_item(self, kind: str, block: BlockKind, index: int | None = None, **fields: Any) -> dict[str, Any]:
        """`index`: by default that of the last item."""
        at = self._index if index is None else index
        item_id = objects.item_id(self._head, at, OutputBlock(block, ""))
        logprobs: dict[str, Any] = {"logprobs": []} if "output_text" in kind else {}
        return self._event(kind, item_id=item_id, output_index=at, content_index=0, **fields, **logprobs)

    @property
    def _index(self) -> int:
        """Of the last item."""
        return len(self._output) - 1

    def _event(self, kind: str, **fields: Any) -> dict[str, Any]:
        number, self._number = self._number, self._number + 1
        return {"type": kind, "sequence_number": number, **fields}

    def _reader_error(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Has the number of the event before it, so that a reader continues after it: the response itself goes on."""
        fields = {"code": content.get("code"), "message": content.get("error"), "param": None}
        return {"type": "error", "sequence_number": max(0, self._number - 1), **fields}


def encode(source: Iterable[Event | None], encoder: ResponseEncoder, after: int) -> Iterator[Event | None]:
    """`after`: the `sequence_number` after which the reader continues, or FROM_START."""
    yield from _events(encoder.begin(), after)
    for event in source:
        if event is None:
            yield None
        else:
            yield from _events(encoder.encode(events.parse_object(event.data), in_log=event.id != ""), after)


def _events(contents: Iterable[Mapping[str, Any]], after: int) -> Iterator[Event]:
    for content in contents:
        if content["sequence_number"] > after or content["type"] == "error":
            yield Event(content["type"], json.dumps(content, separators=(",", ":")))


def _completed_at(content: Mapping[str, Any]) -> int | None:
    moment = content["response"].get("completed_at")
    return moment if type(moment) is int else None
