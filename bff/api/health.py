"""/healthz: is the process alive? /readyz: may it get traffic? /metrics: what has it done?"""

from flask import Blueprint, Response, jsonify, request

from bff.api import services
from bff.ops import metrics

bp = Blueprint("ops", __name__)


@bp.get("/readyz")
def readyz() -> tuple[Response, int]:
    parts = services.parts()
    if parts.streams.draining:
        return jsonify(status="draining"), 503
    states = parts.health.states()
    ready = all(state == "ok" for state in states.values())
    return jsonify(status="ready" if ready else "unready", **states), 200 if ready else 503


@bp.get("/healthz")
def healthz() -> tuple[Response, int]:
    """Slow to fail: whoever asks restarts us, and with us all that streams."""
    alive = services.parts().lag.is_there()
    return jsonify(status="ok" if alive else "stuck"), 200 if alive else 503


@bp.get("/metrics")
def numbers() -> Response:
    """Of all processes behind this port. Raises Unauthorized; NotFound in production without METRICS_TOKEN."""
    parts = services.parts()
    settings = parts.settings
    metrics.check(request.headers.get("Authorization", ""), settings.metrics_token, development=settings.development)
    return Response(metrics.exposition(settings.prometheus_multiproc_dir, parts.queue_sizes), content_type=metrics.CONTENT_TYPE)
