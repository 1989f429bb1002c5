"""The app with `/counts`, which counts live objects inside its process.

No garbage collection runs before: objects in unreachable cycles count as alive.
"""

import gc
import json
from collections.abc import Callable, Iterable
from typing import Any

from greenlet import greenlet

from bff import create_app
from bff.broker.queue import memory
from bff.broker.queue.memory import MemoryQueue

QUEUES: list[MemoryQueue] = []
"""The queues of this process: `gc.get_objects` does not list frozen objects."""


class CountedQueue(MemoryQueue):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        QUEUES.append(self)


memory.MemoryQueue = CountedQueue  # type: ignore[misc]
app = create_app()
_wsgi_app = app.wsgi_app


def _with_counts(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if environ["PATH_INFO"] != "/counts":
        return _wsgi_app(environ, start_response)
    body = json.dumps(counts()).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


app.wsgi_app = _with_counts  # type: ignore[method-assign]


def _is_ours(module: str) -> bool:
    return module.startswith("bff.")


def counts() -> dict[str, int]:
    objects = gc.get_objects()
    return {
        "greenlets": sum(isinstance(object_, greenlet) and not object_.dead for object_ in objects),
        "slots": len(app.extensions["chat_bff"].streams),
        "readers": sum(len(entry.readers) for queue in QUEUES for entry in list(queue._state.entries.values())),
        "busy": sum(queue.counts().queues for queue in QUEUES),
        "kept": sum(len(queue._state.entries) for queue in QUEUES),
        "ours": sum(_is_ours(str(type(object_).__module__)) for object_ in objects),
        "objects": len(objects),
    }
