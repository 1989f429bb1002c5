"""`flask doctor`: checks the settings and everything that a first message needs."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Final

from bff.api.cli.diagnose import CheckResult
from bff.api.cli.doctor_upstreams import check_upstreams
from bff.config import checks
from bff.config.environment import load_settings
from bff.config.settings import Settings, descriptor_limit
from bff.errors import ChatError
from bff.ops.health import Probe
from bff.upstream.broker_client import BrokerClient
from bff.upstream.engine_client import EngineClient

if TYPE_CHECKING:
    from bff.ops.redis import Client, ServerInfo

MIN_REDIS_VERSION: Final = (6, 2)
"""The first version whose XRANGE has exclusive ranges."""


class Doctor:
    """Checks what `create_app` built, before any traffic."""

    def __init__(
        self,
        settings: Settings,
        broker: BrokerClient,
        engine: EngineClient,
        probes: Mapping[str, Probe],
        *,
        own_authenticator: bool = False,
    ) -> None:
        """`own_authenticator`: AUTH_MODE has no effect."""
        self._settings = settings
        self._broker = broker
        self._engine = engine
        self._probes = probes
        self._own_authenticator = own_authenticator

    def results(self) -> Iterator[CheckResult]:
        yield from _check_settings(self._settings, own_authenticator=self._own_authenticator)
        yield _check_host(self._settings)
        yield from check_upstreams(self._settings, self._broker, self._engine)
        if self._settings.redis_url:
            yield from _check_redis(self._settings)
        for name in sorted(self._probes.keys() - {"broker", "engine", "redis"}):
            yield _check_probe(name, self._probes[name])
        yield _check_descriptors(self._settings)


def _check_settings(settings: Settings, *, own_authenticator: bool) -> Iterator[CheckResult]:
    yield CheckResult(True, f"Settings that differ from their defaults: {', '.join(_changed_settings(settings)) or 'none'}.")
    dangers = [*checks.dangers(settings)]
    for message in dangers:
        yield CheckResult(False, message)
    if settings.development:
        yield CheckResult(
            True, "This is development, which allows more; with APP_ENV=production this command checks for production."
        )
        production = replace(settings, app_env="production")
        for message in checks.refusals(production, backend_only=False, own_authenticator=own_authenticator):
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


def _check_host(settings: Settings) -> CheckResult:
    """Binds a socket to HOST, at any free port."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.bind((settings.host, 0))
            both = family == socket.AF_INET6 and not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    except OSError as error:
        return CheckResult(False, f"HOST={settings.host} is not an address of this machine ({error.strerror or error}).")
    ipv4 = ", IPv6 and IPv4" if both and settings.host == "::" else ""
    return CheckResult(True, f"The server listens on {settings.socket_address()}{ipv4}.")


def _changed_settings(settings: Settings) -> Iterator[str]:
    defaults = load_settings({"APP_ENV": settings.app_env}, backend_only=True)
    for field in fields(settings):
        name, value = field.metadata["name"], getattr(settings, field.name)
        if value != getattr(defaults, field.name):
            yield f"{name} (a secret)" if field.metadata.get("secret") else f"{name}={_as_set(value)}"


def _as_set(value: object) -> str:
    """As the environment variable's value."""
    if isinstance(value, tuple):
        return ",".join(map(_as_set, value))
    if isinstance(value, float):
        return f"{value:g}"
    return str(int(value)) if isinstance(value, bool) else str(value)


def _check_redis(settings: Settings) -> Iterator[CheckResult]:
    from bff.ops import redis

    try:
        with redis.connect(settings.redis_url, verify=settings.redis_tls_verify) as client:
            redis.ping(client)
            yield from _check_redis_use(client, settings)
            with suppress(ChatError):  # What is wrong has been reported already.
                yield from _check_redis_neighbours(client, settings)
            server = redis.about(client)
    except ChatError as error:
        yield CheckResult(False, f"Redis cannot be reached ({error.detail}): see REDIS_URL.")
        return
    if server is None:
        yield CheckResult(True, "Redis answers; its version and policy cannot be checked, as the ACL of our user lacks +info.")
    else:
        yield from _check_redis_server(server, is_cluster="+cluster:" in settings.redis_url)


def _check_redis_server(server: "ServerInfo", *, is_cluster: bool) -> Iterator[CheckResult]:
    if server.is_cluster and not is_cluster:
        yield CheckResult(False, "Redis is in cluster mode: REDIS_URL must begin with redis+cluster://.")
    if server.version < MIN_REDIS_VERSION:
        yield CheckResult(False, f"Redis is version {'.'.join(map(str, server.version))}: 6.2 or newer is required.")
    if server.policy != "noeviction":
        yield CheckResult(False, f"Redis may evict replies: its maxmemory-policy is {server.policy} and must be noeviction.")
    yield CheckResult(True, f"Redis {'.'.join(map(str, server.version))} answers.")


def _check_redis_use(client: "Client", settings: Settings) -> Iterator[CheckResult]:
    from bff.ops.redis_check import check_use
    from bff.ops.redis_keys import Keys

    try:
        check_use(client, Keys(settings.redis_prefix))
    except ChatError as error:
        yield CheckResult(False, f"Redis cannot be used. {error.detail}.")


def _check_redis_neighbours(client: "Client", settings: Settings) -> Iterator[CheckResult]:
    from bff.ops.redis_keys import Keys
    from bff.ops.redis_neighbours import foreign_worker, other_prefixes

    keys = Keys(settings.redis_prefix)
    if foreign_worker(client, keys, settings.deployment()):
        yield CheckResult(
            False,
            f"Workers of another deployment use REDIS_PREFIX={keys.prefix} here and would answer ours: each needs its own.",
        )
    if others := other_prefixes(client, keys):
        names = ", ".join(others)
        yield CheckResult(True, f"Other deployments share this Redis and its memory: their REDIS_PREFIX is {names}.")


def _check_probe(name: str, probe: Probe) -> CheckResult:
    try:
        probe()
    except ChatError as error:
        return CheckResult(False, f"The {name} cannot be used. {error.detail or error.code}.")
    return CheckResult(True, f"The {name} answers.")


def _check_descriptors(settings: Settings) -> CheckResult:
    needed, limit = settings.descriptors(), descriptor_limit()
    usage = f"MAX_STREAMS={settings.max_streams} may need {needed} file descriptors, of which this process may have {limit}"
    if needed > limit:
        return CheckResult(False, f"{usage}: lower it, or raise the limit (ulimit -n).")
    return CheckResult(True, f"{usage}.")
