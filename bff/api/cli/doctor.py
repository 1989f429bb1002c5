"""`flask doctor`: checks the settings and everything that a first message needs."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Final

from bff.api.cli.diagnose import CheckResult
from bff.auth.identity import Identity
from bff.config import checks
from bff.config.environment import load_settings
from bff.config.settings import Settings, descriptor_limit
from bff.errors import ChatError, NotFound, UpstreamError
from bff.http import waiting
from bff.ops.health import Probe
from bff.upstream.broker_client import BrokerClient
from bff.upstream.engine_client import EngineClient

if TYPE_CHECKING:
    from bff.ops.redis import Client

DOCTOR_USER: Final = "flask-doctor"
MIN_REDIS_VERSION: Final = (6, 2)
"""The first version whose XRANGE has exclusive ranges."""


class Doctor:
    """Checks what `create_app` built, before any traffic."""

    def __init__(self, settings: Settings, broker: BrokerClient, engine: EngineClient, probes: Mapping[str, Probe]) -> None:
        self._settings = settings
        self._broker = broker
        self._engine = engine
        self._probes = probes

    def results(self) -> Iterator[CheckResult]:
        yield from _check_settings(self._settings)
        yield self._check_broker()
        yield self._check_engine()
        if self._settings.redis_url:
            yield from _check_redis(self._settings)
        for name in sorted(self._probes.keys() - {"broker", "engine", "redis"}):
            yield _check_probe(name, self._probes[name])
        yield _check_descriptors(self._settings)

    def _check_broker(self) -> CheckResult:
        url = self._settings.broker_base_url
        if not url:
            return CheckResult(True, "The broker is the bundled one, in this process.")
        try:
            self._broker.check()
            self._broker.numbers_events(DOCTOR_USER)
        except ChatError as error:
            return CheckResult(False, _failure_message("broker", url, error))
        return CheckResult(True, f"The broker at {url} answers and accepts our key.")

    def _check_engine(self) -> CheckResult:
        url = self._settings.engine_base_url
        if not url:
            return CheckResult(True, "The engine is the bundled one, in this process: it echoes.")
        try:
            with closing(waiting.new_waiter()) as waiter:
                self._engine.known_preferences(Identity(DOCTOR_USER, self._settings.default_org), waiter)
        except NotFound:
            # Most engines answer 404 for an unknown user; any other server answers 404 for an unknown path.
            return CheckResult(True, f"The server at {url} knows no user {DOCTOR_USER}, or is no engine: see ENGINE_BASE_URL.")
        except ChatError as error:
            return CheckResult(False, _failure_message("engine", url, error))
        return CheckResult(True, f"The engine at {url} answers and accepts our key.")


def _failure_message(name: str, url: str, error: ChatError) -> str:
    setting = name.upper()
    status = error.upstream_status if isinstance(error, UpstreamError) else None
    if status in {401, 403}:
        return f"The {name} at {url} refuses our key: {setting}_API_KEY is not the one it expects."
    if status == 404:
        return f"The server at {url} is no {name}: {setting}_BASE_URL must be the part of the URL before /api/v1."
    return f"The {name} at {url} does not answer as it should ({error.detail or error.code}): see {setting}_BASE_URL."


def _check_settings(settings: Settings) -> Iterator[CheckResult]:
    yield CheckResult(True, f"Settings that differ from their defaults: {', '.join(_changed_settings(settings)) or 'none'}.")
    dangers = [*checks.dangers(settings)]
    for message in dangers:
        yield CheckResult(False, message)
    if settings.development:
        yield CheckResult(
            True, "This is development, which allows more; APP_ENV=production flask doctor checks for production."
        )
        production = replace(settings, app_env="production")
        for message in checks.refusals(production, backend_only=False):
            if message not in dangers:
                yield CheckResult(True, f"Production would refuse to start: {message}")
        for message in checks.warnings(production):
            yield CheckResult(True, f"In production: {message}")
    elif not settings.metrics_token:
        yield CheckResult(True, "/metrics is disabled: METRICS_TOKEN is not set.")
    for message in checks.warnings(settings):
        yield CheckResult(False, message)
    if settings.web_concurrency > 1 and not settings.redis_url:
        yield CheckResult(False, "WEB_CONCURRENCY has no effect: without REDIS_URL the queue is in the memory of one process.")


def _changed_settings(settings: Settings) -> Iterator[str]:
    defaults = load_settings({"APP_ENV": settings.app_env}, backend_only=True)
    for field in fields(settings):
        name, value = field.metadata["name"], getattr(settings, field.name)
        if value != getattr(defaults, field.name):
            yield f"{name} (a secret)" if field.metadata.get("secret") else f"{name}={value}"


def _check_redis(settings: Settings) -> Iterator[CheckResult]:
    from bff.ops import redis

    try:
        with redis.connect(settings.redis_url, verify=settings.redis_tls_verify) as client:
            server = redis.about(client)
            yield from _check_redis_writes(client)
    except ChatError as error:
        yield CheckResult(False, f"Redis cannot be reached ({error.detail}): see REDIS_URL.")
        return
    if server.version < MIN_REDIS_VERSION:
        yield CheckResult(False, f"Redis is version {'.'.join(map(str, server.version))}: 6.2 or newer is required.")
    if server.policy != "noeviction":
        yield CheckResult(False, f"Redis may evict replies: its maxmemory-policy is {server.policy} and must be noeviction.")
    yield CheckResult(True, f"Redis {'.'.join(map(str, server.version))} answers.")


def _check_redis_writes(client: "Client") -> Iterator[CheckResult]:
    from bff.ops import redis

    try:
        redis.check_writes(client)
    except ChatError as error:
        yield CheckResult(False, f"Redis accepts no writes ({error.detail}).")


def _check_probe(name: str, probe: Probe) -> CheckResult:
    try:
        probe()
    except ChatError as error:
        return CheckResult(False, f"The {name} does not answer ({error.detail or error.code}).")
    return CheckResult(True, f"The {name} answers.")


def _check_descriptors(settings: Settings) -> CheckResult:
    needed, limit = settings.descriptors(), descriptor_limit()
    usage = f"MAX_STREAMS={settings.max_streams} may need {needed} file descriptors, of which this process may have {limit}"
    if needed > limit:
        return CheckResult(False, f"{usage}: lower it, or raise the limit (ulimit -n).")
    return CheckResult(True, f"{usage}.")
