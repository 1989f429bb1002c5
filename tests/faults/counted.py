"""The app, with a door that counts what is alive inside its process: what nothing outside can see.

Nothing is collected for it: what only the garbage collector would free counts as alive.
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
"""Those of this process: once they are frozen, the collector does not list them."""


class CountedQueue(MemoryQueue):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        QUEUES.append(self)


memory.MemoryQueue = CountedQueue  # type: ignore[misc]
app = create_app()
_served = app.wsgi_app


def _counted(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if environ["PATH_INFO"] != "/counts":
        return _served(environ, start_response)
    body = json.dumps(counts()).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


app.wsgi_app = _counted  # type: ignore[method-assign]


def _is_ours(module: str) -> bool:
    return module.startswith("bff.")


def counts() -> dict[str, int]:
    things = gc.get_objects()
    return {
        "greenlets": sum(isinstance(thing, greenlet) and not thing.dead for thing in things),
        "slots": len(app.extensions["chat_bff"].streams),
        "readers": sum(len(entry.readers) for queue in QUEUES for entry in list(queue._state.entries.values())),
        "busy": sum(queue.counts().queues for queue in QUEUES),
        "kept": sum(len(queue._state.entries) for queue in QUEUES),
        "ours": sum(_is_ours(str(type(thing).__module__)) for thing in things),
        "objects": len(things),
    }
