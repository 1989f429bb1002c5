"""What is wrong with a set-up, in sentences: `flask doctor` tries what a first message would need."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Final

from bff.api.cli.diagnose import CheckResult
from bff.auth.identity import Identity
from bff.config import checks
from bff.config.environment import load_settings
from bff.config.settings import Settings, descriptor_limit
from bff.errors import ChatError, NotFound
from bff.http import waiting
from bff.ops.health import Probe
from bff.upstream.broker_client import BrokerClient
from bff.upstream.engine_client import EngineClient

if TYPE_CHECKING:
    from bff.ops.redis import Client

NOBODY: Final = "flask-doctor"
REDIS_OLDEST: Final = (6, 2)
"""It is the first that reads a stream from after an id."""


class Doctor:
    """A process's set-up: what `create_app` built, and nothing has been asked of yet."""

    def __init__(self, settings: Settings, broker: BrokerClient, engine: EngineClient, probes: Mapping[str, Probe]) -> None:
        self._settings = settings
        self._broker = broker
        self._engine = engine
        self._probes = probes

    def findings(self) -> Iterator[CheckResult]:
        yield from _of_settings(self._settings)
        yield self._broker_finding()
        yield self._engine_finding()
        if self._settings.redis_url:
            yield from _of_redis(self._settings)
        for name in sorted(self._probes.keys() - {"broker", "engine", "redis"}):
            yield _of_probe(name, self._probes[name])
        yield _of_descriptors(self._settings)

    def _broker_finding(self) -> CheckResult:
        where = self._settings.broker_base_url
        if not where:
            return CheckResult(True, "The broker is the bundled one, in this process.")
        try:
            self._broker.check()
            self._broker.numbers_events(NOBODY)
        except ChatError as problem:
            return CheckResult(False, _away("broker", where, problem))
        return CheckResult(True, f"The broker at {where} answers, and takes our key.")

    def _engine_finding(self) -> CheckResult:
        where = self._settings.engine_base_url
        if not where:
            return CheckResult(True, "The engine is the bundled one, in this process: it echoes.")
        try:
            with closing(waiting.new_waiter()) as waiter:
                self._engine.known_preferences(Identity(NOBODY, self._settings.default_org), waiter)
        except NotFound:
            # Most say so of a user they have never seen, and every other server of a path it does not have.
            return CheckResult(True, f"What answers at {where} knows no user {NOBODY}, or is no engine: see ENGINE_BASE_URL.")
        except ChatError as problem:
            return CheckResult(False, _away("engine", where, problem))
        return CheckResult(True, f"The engine at {where} answers, and takes our key.")


def _away(name: str, where: str, problem: ChatError) -> str:
    setting = name.upper()
    if problem.detail.endswith(("answered 401", "answered 403")):
        return f"The {name} at {where} refuses our key: {setting}_API_KEY is not the one it wants."
    if problem.detail.endswith("answered 404"):
        return f"What answers at {where} is no {name}: {setting}_BASE_URL should be what comes before /api/v1."
    return f"The {name} at {where} does not answer as it should ({problem.detail or problem.code}): see {setting}_BASE_URL."


def _of_settings(settings: Settings) -> Iterator[CheckResult]:
    yield CheckResult(True, f"The settings that are not at their defaults: {', '.join(_shown(settings)) or 'none'}.")
    dangers = [*checks.dangers(settings)]
    for message in dangers:
        yield CheckResult(False, message)
    if settings.development:
        yield CheckResult(
            True, "This is development, which forgives much; APP_ENV=production flask doctor looks at production."
        )
        production = replace(settings, app_env="production")
        for message in checks.refusals(production, neighbour=False):
            if message not in dangers:
                yield CheckResult(True, f"Production would refuse to start: {message}")
        for message in checks.warnings(production):
            yield CheckResult(True, f"In production: {message}")
    elif not settings.metrics_token:
        yield CheckResult(True, "/metrics answers nobody: METRICS_TOKEN is not set.")
    for message in checks.warnings(settings):
        yield CheckResult(False, message)
    if settings.web_concurrency > 1 and not settings.redis_url:
        yield CheckResult(False, "WEB_CONCURRENCY does nothing: without REDIS_URL the queue is in one process's memory.")


def _shown(settings: Settings) -> Iterator[str]:
    usual = load_settings({"APP_ENV": settings.app_env}, neighbour=True)
    for field in fields(settings):
        name, value = field.metadata["name"], getattr(settings, field.name)
        if value != getattr(usual, field.name):
            yield f"{name} (a secret)" if field.metadata.get("secret") else f"{name}={value}"


def _of_redis(settings: Settings) -> Iterator[CheckResult]:
    from bff.ops import redis

    try:
        with redis.connect(settings.redis_url, verify=settings.redis_tls_verify) as client:
            about = redis.about(client)
            yield from _of_redis_writes(client)
    except ChatError as problem:
        yield CheckResult(False, f"Redis cannot be reached ({problem.detail}): see REDIS_URL.")
        return
    if about.version < REDIS_OLDEST:
        yield CheckResult(False, f"Redis is version {'.'.join(map(str, about.version))}: 6.2 is the oldest that will do.")
    if about.policy != "noeviction":
        yield CheckResult(
            False, f"Redis may throw answers away: its maxmemory-policy is {about.policy}, and has to be noeviction."
        )
    yield CheckResult(True, f"Redis {'.'.join(map(str, about.version))} answers.")


def _of_redis_writes(client: "Client") -> Iterator[CheckResult]:
    from bff.ops import redis

    try:
        redis.check_writes(client)
    except ChatError as problem:
        yield CheckResult(False, f"Redis takes no writes ({problem.detail}).")


def _of_probe(name: str, probe: Probe) -> CheckResult:
    try:
        probe()
    except ChatError as problem:
        return CheckResult(False, f"The {name} does not answer ({problem.detail or problem.code}).")
    return CheckResult(True, f"The {name} answers.")


def _of_descriptors(settings: Settings) -> CheckResult:
    needed, limit = settings.descriptors(), descriptor_limit()
    most = f"MAX_STREAMS={settings.max_streams} may need {needed} file descriptors, of which this process may have {limit}"
    if needed > limit:
        return CheckResult(False, f"{most}: lower it, or raise the limit (ulimit -n).")
    return CheckResult(True, f"{most}.")
