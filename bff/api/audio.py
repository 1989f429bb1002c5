"""/api/audio: the spoken replies of the engine, each for its own user only."""

import logging
from collections.abc import Callable
from time import monotonic

from flask import Blueprint, Response, after_this_request, request
from werkzeug.http import unquote_etag

from bff import errors
from bff.api import hooks, request_state, services
from bff.api.engine_request import open_engine_request
from bff.api.openapi import AUTH_ERRORS, LIMIT_ERRORS, UPSTREAM_ERRORS, Parameter, ResponseSpec, describe
from bff.api.openapi.parameters import text
from bff.errors import InvalidRequest, RangeNotSatisfiable
from bff.http.download import Download
from bff.http.streams import Slot
from bff.upstream import recordings
from bff.upstream.recordings import Part, Recording

bp = Blueprint("audio", __name__, url_prefix="/api/audio")
hooks.add_hooks(bp)
log = logging.getLogger("bff.requests")


@bp.get("")
@describe(
    "Get the audio of one of the user's replies, from the engine.",
    {
        200: ResponseSpec("The whole recording.", media_type="*/*"),
        206: ResponseSpec("The requested range.", media_type="*/*", headers={"Content-Range": "The range."}),
        304: ResponseSpec("The client's copy is current."),
    },
    (*AUTH_ERRORS, *LIMIT_ERRORS, *UPSTREAM_ERRORS, errors.NotFound, errors.RangeNotSatisfiable),
    parameters=(
        Parameter("url", text(), "A reply's voice_audio_url.", required=True),
        Parameter("Range", text(), location="header"),
    ),
)
def download() -> Response:
    url = request.args.get("url", "")
    if not url:
        raise InvalidRequest("url: is required.")
    with open_engine_request() as (identity, slot, waiter):
        recording, filename = services.parts().engine.recording(url, identity, waiter)
        try:
            if _is_not_modified(recording.etag):
                recording.close()
                slot.release()
                return Response(status=304, headers=_cache_headers(recording))
            return _download(recording, filename, slot)
        except BaseException:
            recording.close()
            raise


def _is_not_modified(etag: str) -> bool:
    return etag != "" and request.if_none_match.contains_weak(unquote_etag(etag)[0] or "")


def _download(recording: Recording, filename: str, slot: Slot) -> Response:
    part, size = _requested_part(recording), recording.size
    headers = _cache_headers(recording) | {"Accept-Ranges": "bytes", "Content-Disposition": f'inline; filename="{filename}"'}
    if part is not None:
        headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
    status, part = 206 if part else 200, part or Part(0, size)
    return Download(
        recording.pieces(part),
        part.stop - part.start,
        environ=request.environ,
        slot=slot,
        close=_close_callback(recording, status),
        status=status,
        content_type=recording.content_type,
        headers=headers,
    )


def _requested_part(recording: Recording) -> Part | None:
    """None for the whole recording: without a valid Range, or if If-Range does not match strongly (RFC 9110, 13.1.5)."""
    if_range = request.headers.get("If-Range")
    if if_range is not None and (if_range != recording.etag or if_range.startswith("W/")):
        return None
    try:
        return recordings.part(request.headers.get("Range", ""), recording.size)
    except RangeNotSatisfiable:
        after_this_request(_add_size(recording.size))
        raise


def _add_size(size: int) -> Callable[[Response], Response]:
    def add(response: Response) -> Response:
        response.headers["Content-Range"] = f"bytes */{size}"
        return response

    return add


def _cache_headers(recording: Recording) -> dict[str, str]:
    """`private`, as a shared cache knows nothing of the cookie or header that identifies the user."""
    max_age = f"max-age={recording.max_age}" if recording.max_age else "no-cache"
    return {"Cache-Control": f"private, {max_age}, no-transform"} | ({"ETag": recording.etag} if recording.etag else {})


def _close_callback(recording: Recording, status: int) -> Callable[[str, int], None]:
    """Closes the recording and logs one line, as streams do."""
    started_at, fields = monotonic(), {"request_id": request_state.request_id(), "status": status}

    def close(ended: str, sent: int) -> None:
        recording.close()
        ms = round((monotonic() - started_at) * 1000)
        log.info("GET /api/audio %d", status, extra=fields | {"ended": ended, "bytes": sent, "ms": ms})

    return close
