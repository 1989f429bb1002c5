"""The settings: one field for each environment variable, with its default and its parser. See `docs/configuration.md`."""

import contextlib
import resource
import secrets
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from bff.config.parsers import (
    Parse,
    base_url,
    boolean,
    ca_file,
    choice,
    cookie_name,
    database_url,
    header_name,
    host,
    integer,
    no_proxy,
    non_negative_seconds,
    org,
    origins,
    proxy_url,
    redis_prefix,
    retry_seconds,
    seconds,
    url,
    webhook_secrets,
)
from bff.config.redis_url import redis_url

MIB = 1024 * 1024
OTHER_DESCRIPTORS = 200
DEVELOPMENT_KEY = Path("instance/secret_key")
DEFAULT_QUEUE_FILE = "instance/queue.db"
DEFAULT_MODEL_READ_SECONDS: Final = 300.0
DEFAULT_RETRY_SECONDS: Final = (5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0)
"""Between the tries of a webhook, as Standard Webhooks recommend."""
MAX_KEEPALIVE_SECONDS: Final = 15.0
AUTH_MODES: Final = ("anonymous", "proxy", "jwt")
KEY_BYTES: Final = 32
"""The minimum length of a secret. A shorter one can be guessed offline."""


def streams_by_descriptors(each: int, others: int) -> int:
    """The number of streams that the limit on file descriptors allows.

    `each`: descriptors per stream. `others`: descriptors for other purposes, besides OTHER_DESCRIPTORS.
    """
    return max(16, (descriptor_limit() - OTHER_DESCRIPTORS - others) // each)


def descriptor_limit() -> int:
    """The soft limit of this process."""
    return min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 2**20)


def setting(name: str, default: Any, parse: Parse = str, *, alias: str = "") -> Any:
    """`alias`: another name of the variable, which has precedence."""
    return field(default=default, metadata={"name": name, "parse": parse, "alias": alias})


def secret(name: str, default: str = "", parse: Parse = str, *, alias: str = "") -> Any:
    """A setting that `repr` leaves out and that `<name>_FILE` may hold instead."""
    return field(default=default, repr=False, metadata={"name": name, "parse": parse, "alias": alias, "secret": True})


@dataclass(frozen=True, kw_only=True)
class Settings:
    app_env: str = setting("APP_ENV", "production", choice("production", "development"))
    host: str = setting("HOST", "", host)
    """The address to listen on. `load_settings` fills in a default."""
    port: int = setting("PORT", 8000, integer(0, 65535))
    web_concurrency: int = setting("WEB_CONCURRENCY", 1, integer(1, 256))
    secret_key: str = secret("SECRET_KEY")

    broker_base_url: str = setting("BROKER_BASE_URL", "", base_url)
    broker_api_key: str = secret("BROKER_API_KEY")
    engine_base_url: str = setting("ENGINE_BASE_URL", "", base_url)
    engine_api_key: str = secret("ENGINE_API_KEY")
    redis_url: str = secret("REDIS_URL", parse=redis_url)
    redis_prefix: str = setting("REDIS_PREFIX", "chat", redis_prefix)
    """Before every key and channel."""
    redis_tls_verify: bool = setting("REDIS_TLS_VERIFY", True, boolean)
    queue_file: str = setting("QUEUE_FILE", DEFAULT_QUEUE_FILE)
    lease_seconds: float = setting("LEASE_SECONDS", 10.0, seconds)
    run_worker: bool = setting("RUN_WORKER", True, boolean)
    database_url: str = secret("DATABASE_URL", "sqlite:///instance/chat.db", database_url)
    default_agent: str = setting("DEFAULT_AGENT", "")
    openai_base_url: str = setting("OPENAI_BASE_URL", "", base_url)
    openai_api_key: str = secret("OPENAI_API_KEY")
    openai_model: str = setting("OPENAI_MODEL", "gpt-4o-mini")
    ca_file: str = setting("CA_FILE", "", ca_file)
    https_proxy: str = secret("HTTPS_PROXY", parse=proxy_url, alias="https_proxy")
    no_proxy: tuple[str, ...] = setting("NO_PROXY", (), no_proxy, alias="no_proxy")
    client_id: str = setting("CLIENT_ID", "web")
    default_org: str = setting("DEFAULT_ORG", "default", org)
    org_map_file: str = setting("ORG_MAP_FILE", "")

    auth_mode: str = setting("AUTH_MODE", "", choice(*AUTH_MODES))
    auth_proxy_user_header: str = setting("AUTH_PROXY_USER_HEADER", "X-Forwarded-User", header_name)
    auth_proxy_secret: str = secret("AUTH_PROXY_SECRET")
    auth_jwt_cookie: str = setting("AUTH_JWT_COOKIE", "", cookie_name)
    auth_jwt_secret: str = secret("AUTH_JWT_SECRET")
    auth_jwt_jwks_url: str = setting("AUTH_JWT_JWKS_URL", "", url)
    auth_jwt_audience: str = setting("AUTH_JWT_AUDIENCE", "")
    auth_jwt_issuer: str = setting("AUTH_JWT_ISSUER", "")
    auth_jwt_user_claim: str = setting("AUTH_JWT_USER_CLAIM", "sub")
    auth_jwt_org_claim: str = setting("AUTH_JWT_ORG_CLAIM", "org")
    cors_allow_origins: tuple[str, ...] = setting("CORS_ALLOW_ORIGINS", (), origins)
    trusted_proxy_hops: int = setting("TRUSTED_PROXY_HOPS", 0, integer(0, 16))

    heartbeat_seconds: float = setting("HEARTBEAT_SECONDS", 15.0, seconds)
    heartbeat: str = setting("HEARTBEAT", "event", choice("event", "comment"))
    upstream_connect_seconds: float = setting("UPSTREAM_CONNECT_SECONDS", 5.0, seconds)
    upstream_open_seconds: float = setting("UPSTREAM_OPEN_SECONDS", 20.0, seconds)
    upstream_read_seconds: float = setting("UPSTREAM_READ_SECONDS", 45.0, seconds)
    engine_seconds: float = setting("ENGINE_SECONDS", 120.0, seconds)
    answer_max_seconds: float = setting("ANSWER_MAX_SECONDS", 600.0, seconds)
    model_read_seconds: float = setting("MODEL_READ_SECONDS", DEFAULT_MODEL_READ_SECONDS, seconds)
    max_event_bytes: int = setting("MAX_EVENT_BYTES", 16 * MIB, integer(1024))
    max_body_bytes: int = setting("MAX_BODY_BYTES", 36 * MIB, integer(1024))
    expose_upstream_errors: bool = setting("EXPOSE_UPSTREAM_ERRORS", False, boolean)
    relay_tool_events: bool = setting("RELAY_TOOL_EVENTS", True, boolean)
    relay_reasoning: bool = setting("RELAY_REASONING", True, boolean)

    max_streams_per_user: int = setting("MAX_STREAMS_PER_USER", 32, integer(1))
    messages_per_minute: int = setting("MESSAGES_PER_MINUTE", 60, integer(1))
    request_seconds: float = setting("REQUEST_SECONDS", 30.0, seconds)
    slow_reader_seconds: float = setting("SLOW_READER_SECONDS", 60.0, seconds)
    drain_seconds: float = setting("DRAIN_SECONDS", 20.0, seconds)
    max_streams: int = setting("MAX_STREAMS", 0, integer(1))
    max_running: int = setting("MAX_RUNNING", 200, integer(1))
    queue_depth_per_user: int = setting("QUEUE_DEPTH_PER_USER", 20, integer(1))
    log_max_bytes: int = setting("LOG_MAX_BYTES", 32 * MIB, integer(1024))
    engine_repeatable: bool = setting("ENGINE_REPEATABLE", False, boolean)
    on_busy: str = setting("ON_BUSY", "enqueue", choice("enqueue", "reject", "interrupt"))
    on_disconnect: str = setting("ON_DISCONNECT", "continue", choice("continue", "cancel"))
    conversation_on_disconnect: str = setting("CONVERSATION_ON_DISCONNECT", "cancel", choice("cancel", "continue"))
    disconnect_grace_seconds: float = setting("DISCONNECT_GRACE_SECONDS", 5.0, seconds)
    keep_stopped: bool = setting("KEEP_STOPPED", False, boolean)
    history_characters: int = setting("HISTORY_CHARACTERS", 200_000, integer(1))
    retention_seconds: float = setting("RETENTION_SECONDS", 600.0, seconds)
    echo_word_seconds: float = setting("ECHO_WORD_SECONDS", 0.03, non_negative_seconds)

    webhook_url: str = setting("WEBHOOK_URL", "", url)
    webhook_secret: str = secret("WEBHOOK_SECRET", parse=webhook_secrets)
    webhook_allow_origins: tuple[str, ...] = setting("WEBHOOK_ALLOW_ORIGINS", (), origins)
    webhook_seconds: float = setting("WEBHOOK_SECONDS", 15.0, seconds)
    webhook_retry_seconds: tuple[float, ...] = setting("WEBHOOK_RETRY_SECONDS", DEFAULT_RETRY_SECONDS, retry_seconds)

    dyno: str = setting("DYNO", "")
    """Set by Heroku: the name of the dyno, whose disk does not outlive it."""

    metrics_token: str = secret("METRICS_TOKEN")
    prometheus_multiproc_dir: str = setting("PROMETHEUS_MULTIPROC_DIR", "")
    """Read by prometheus_client, too: the directory in which processes share their metrics."""

    log_level: str = setting("LOG_LEVEL", "INFO", choice("DEBUG", "INFO", "WARNING", "ERROR"))
    log_format: str = setting("LOG_FORMAT", "", choice("json", "text"))

    @property
    def development(self) -> bool:
        return self.app_env == "development"

    def socket_address(self) -> str:
        """HOST and PORT in one text, as in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def keepalive_seconds(self) -> float:
        """How often the bundled broker and engine send something: two may be late before their stream counts as dead."""
        return min(MAX_KEEPALIVE_SECONDS, self.upstream_read_seconds / 3)

    def descriptors(self) -> int:
        """File descriptors that MAX_STREAMS streams and everything else need."""
        each, others = self.descriptor_needs()
        return self.max_streams * each + others + OTHER_DESCRIPTORS

    def descriptor_needs(self) -> tuple[int, int]:
        """Per stream, and for running replies. An external service needs a socket per stream, besides the browser's."""
        each = 2 if self.broker_base_url or self.engine_base_url or self.openai_base_url else 1
        return each, 0 if self.broker_base_url else self.max_running

    def deployment(self) -> str:
        """A hash that processes of one deployment have in common, and those of others mostly have not."""
        return sha256("\0".join((self.database_url, self.engine_base_url, self.broker_base_url)).encode()).hexdigest()[:16]

    def journal_file(self, *, standalone: bool = False) -> Path | None:
        """The file that journals the queue in memory; None if there is no journal.

        `standalone`: for a broker in a process of its own, whose default is not the file of a web process on the same machine.
        """
        if self.redis_url or self.queue_file == "off":
            return None
        if self.queue_file != DEFAULT_QUEUE_FILE:
            return Path(self.queue_file)
        return None if self.dyno else Path(DEFAULT_QUEUE_FILE).with_stem("broker-queue" if standalone else "queue")

    def signing_key(self) -> str:
        """SECRET_KEY. In development a random one is stored at the first start, so that cookies stay valid after a restart."""
        if self.secret_key:
            return self.secret_key
        DEVELOPMENT_KEY.parent.mkdir(exist_ok=True)
        temporary = DEVELOPMENT_KEY.with_suffix(f".{secrets.token_hex(4)}")
        temporary.touch(0o600)
        temporary.write_text(secrets.token_hex(KEY_BYTES))
        with contextlib.suppress(FileExistsError):
            DEVELOPMENT_KEY.hardlink_to(temporary)  # Atomic: several processes may start at once.
        temporary.unlink()
        return DEVELOPMENT_KEY.read_text()
