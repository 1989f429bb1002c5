"""/healthz (liveness), /readyz (readiness) and /metrics (Prometheus)."""

from flask import Blueprint, Response, jsonify, request

from bff import errors
from bff.api import hooks, services
from bff.api.openapi import PUBLIC_ERRORS, ResponseSpec, describe
from bff.api.openapi.schemas import Alive, Ready
from bff.ops import metrics

bp = Blueprint("ops", __name__)
hooks.add_hooks(bp, linkable=True)


@bp.get("/readyz")
@describe(
    "Report whether the process can serve traffic.",
    {200: ResponseSpec("It can.", Ready), 503: ResponseSpec("It cannot, with the reasons.", Ready)},
    (errors.InternalError,),
    public=True,
)
def readyz() -> tuple[Response, int]:
    parts = services.parts()
    if parts.streams.draining:
        return jsonify(status="draining"), 503
    states = parts.health.states()
    ready = all(state == "ok" for state in states.values())
    return jsonify(status="ready" if ready else "unready", **states), 200 if ready else 503


@bp.get("/healthz")
@describe(
    "Report whether the process is alive.",
    {200: ResponseSpec("It is alive.", Alive), 503: ResponseSpec("It must be restarted.", Alive)},
    (errors.InternalError,),
    public=True,
)
def healthz() -> tuple[Response, int]:
    """Fails late: a failed liveness probe restarts the process, which ends its streams."""
    alive = services.parts().lag.is_responsive()
    return jsonify(status="ok" if alive else "stuck"), 200 if alive else 503


@bp.get("/metrics")
@describe(
    "Get counters and gauges. Outside development the bearer token is METRICS_TOKEN.",
    {200: ResponseSpec("The metrics in Prometheus' text format.", media_type="text/plain")},
    (*PUBLIC_ERRORS, errors.Unauthorized, errors.NotFound),
    public=True,
)
def export_metrics() -> Response:
    """The sum over all processes of this server. Raises Unauthorized; NotFound in production without METRICS_TOKEN."""
    parts = services.parts()
    settings = parts.settings
    metrics.check(request.headers.get("Authorization", ""), settings.metrics_token, development=settings.development)
    return Response(metrics.exposition(settings.prometheus_multiproc_dir, parts.queue_sizes), content_type=metrics.CONTENT_TYPE)
