"""The app, with a door that counts what is alive inside its process: what nothing outside can see."""

import gc
import json
from collections.abc import Callable, Iterable
from typing import Any

from greenlet import greenlet

from bff import create_app
from bff.broker.memory import MemoryQueue

_app = create_app()


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if environ["PATH_INFO"] != "/counts":
        return _app(environ, start_response)
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(counts()).encode()]


app.extensions = _app.extensions  # type: ignore[attr-defined] - where gunicorn.conf.py finds the drain


def counts() -> dict[str, int]:
    gc.collect()
    things = gc.get_objects()
    queues = [thing for thing in things if isinstance(thing, MemoryQueue)]
    return {
        "greenlets": sum(isinstance(thing, greenlet) and not thing.dead for thing in things),
        "slots": len(_app.extensions["bff"].streams),
        "readers": sum(len(entry.readers) for queue in queues for entry in queue._entries.values()),
        "busy": sum(queue.counts().queues for queue in queues),
        "kept": sum(len(queue._entries) for queue in queues),
        "objects": len(things),
    }
