"""/api/audio: a spoken answer, of the engine's and of this user's only."""

import logging
from collections.abc import Callable
from time import monotonic

from flask import Blueprint, Response, after_this_request, request
from werkzeug.http import unquote_etag

from bff.api import hooks, services
from bff.api.engine_request import open_engine_request
from bff.errors import InvalidRequest, RangeNotSatisfiable
from bff.http.download import Download
from bff.http.streams import Slot
from bff.upstream import recordings
from bff.upstream.recordings import Part, Recording

bp = Blueprint("audio", __name__, url_prefix="/api/audio")
log = logging.getLogger("bff.requests")


@bp.get("")
def hear() -> Response:
    url = request.args.get("url", "")
    if not url:
        raise InvalidRequest("url: is required.")
    with open_engine_request() as (who, slot, waiter):
        recording, file = services.parts().engine.recording(url, who, waiter)
        try:
            if _is_known(recording.etag):
                recording.close()
                slot.release()
                return Response(status=304, headers=_about(recording))
            return _sent(recording, file, slot)
        except BaseException:
            recording.close()
            raise


def _is_known(etag: str) -> bool:
    return etag != "" and request.if_none_match.contains_weak(unquote_etag(etag)[0] or "")


def _sent(recording: Recording, file: str, slot: Slot) -> Response:
    part, size = _part(recording), recording.size
    fields = _about(recording) | {"Accept-Ranges": "bytes", "Content-Disposition": f'inline; filename="{file}"'}
    if part is not None:
        fields["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
    status, part = 206 if part else 200, part or Part(0, size)
    return Download(
        recording.pieces(part),
        part.stop - part.start,
        environ=request.environ,
        slot=slot,
        close=_closer(recording, status),
        status=status,
        content_type=recording.content_type,
        headers=fields,
    )


def _part(recording: Recording) -> Part | None:
    """What is asked for; None for all of it, also when what the browser has a part of is not known to be this."""
    condition = request.headers.get("If-Range")
    if condition is not None and (condition != recording.etag or condition.startswith("W/")):
        return None
    try:
        return recordings.part(request.headers.get("Range", ""), recording.size)
    except RangeNotSatisfiable:
        after_this_request(_with_size(recording.size))
        raise


def _with_size(size: int) -> Callable[[Response], Response]:
    def add(response: Response) -> Response:
        response.headers["Content-Range"] = f"bytes */{size}"
        return response

    return add


def _about(recording: Recording) -> dict[str, str]:
    """`private`: whoever asks is known by a cookie or a header, which a shared cache does not look at."""
    kept = f"max-age={recording.max_age}" if recording.max_age else "no-cache"
    return {"Cache-Control": f"private, {kept}, no-transform"} | ({"ETag": recording.etag} if recording.etag else {})


def _closer(recording: Recording, status: int) -> Callable[[str, int], None]:
    """Its end is one log line, as a stream's is."""
    began, about = monotonic(), {"request_id": hooks.request_id(), "status": status}

    def close(ended: str, sent: int) -> None:
        recording.close()
        ms = round((monotonic() - began) * 1000)
        log.info("GET /api/audio %d", status, extra=about | {"ended": ended, "bytes": sent, "ms": ms})

    return close
