"""REDIS_URL: one server, or servers behind Sentinels, or a cluster.

    redis://[user:password@]host[:port][/db]
    redis+sentinel://[user:password@]host[:port],host[:port]/service[/db]
    redis+cluster://[user:password@]host[:port],host[:port]

`rediss` in place of `redis`: over TLS. `unix:///path`: a socket.
"""

import re
from typing import Final, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

Address = tuple[str, int]

INVALID: Final = "is not a Redis URL"
DEFAULT_PORTS: Final = {"sentinel": 26379, "cluster": 6379}
_SERVICE: Final = r"[A-Za-z0-9._-]{1,128}"
_DISTRIBUTED: Final = re.compile(
    rf"(?P<tls>rediss?)\+(?P<form>sentinel|cluster)://(?:(?P<login>[^@/]*)@)?(?P<hosts>[^@/?#]+)"
    rf"(?:/(?P<service>{_SERVICE})?(?:/(?P<db>\d{{1,4}}))?)?/?(?:\?(?P<query>[^#]*))?"
)
_HOST: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:,]+)(?::(?P<port>\d{1,5}))?")


class DistributedURL(NamedTuple):
    """Of Sentinels or of a cluster."""

    form: str
    """sentinel or cluster."""
    tls: bool
    hosts: tuple[Address, ...]
    username: str = ""
    password: str = ""
    service: str = ""
    db: int = 0
    sentinel_username: str = ""
    sentinel_password: str = ""
    """Of the Sentinels themselves: mostly they need none."""


def redis_url(text: str) -> str:
    """Raises ValueError."""
    if "+" in text.partition(":")[0]:
        parse_distributed(text)
        return text
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise ValueError(INVALID) from None
    if not ((parts.scheme in {"redis", "rediss"} and parts.hostname) or (parts.scheme == "unix" and parts.path)):
        raise ValueError(INVALID)
    return text


def parse_distributed(text: str) -> DistributedURL:
    """Raises ValueError."""
    match = _DISTRIBUTED.fullmatch(text)
    if match is None:
        raise ValueError(INVALID)
    sentinel = match["form"] == "sentinel"
    if sentinel != bool(match["service"]) or (match["db"] and not sentinel):
        raise ValueError(f"{INVALID}: redis+sentinel://host,host/service, or redis+cluster://host,host")
    username, _, password = (match["login"] or "").partition(":")
    login = (unquote(username), unquote(password))
    hosts = tuple(_address(host, DEFAULT_PORTS[match["form"]]) for host in match["hosts"].split(","))
    query = {name: values[-1] for name, values in parse_qs(match["query"] or "").items()}
    if query.keys() - {"sentinel_username", "sentinel_password"} or (query and not sentinel):
        raise ValueError(f"{INVALID}: it has an unknown option")
    own_login = (query.get("sentinel_username", ""), query.get("sentinel_password", ""))
    return DistributedURL(
        match["form"], match["tls"] == "rediss", hosts, *login, match["service"] or "", int(match["db"] or 0), *own_login
    )


def _address(text: str, default_port: int) -> Address:
    match = _HOST.fullmatch(text.strip())
    port = int(match["port"] or default_port) if match else 0
    if match is None or not 0 < port < 65536:
        raise ValueError(INVALID)
    return match["host"].strip("[]"), port
