"""The HTTP proxy on the way to upstream services: `HTTPS_PROXY` and `NO_PROXY`, with the meaning that curl gives them.

requests would read these variables for each request, which costs more CPU time than the request.
"""

import ipaddress
import re
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from bff.config.settings import Settings


class Proxy(NamedTuple):
    """For `https://` URLs, through a tunnel (CONNECT): the proxy sees the host but not the request, which holds our key."""

    url: str = ""
    """"" for no proxy. May hold a user and a password."""
    exempt: tuple[str, ...] = ()
    """The entries of NO_PROXY."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        url = settings.https_proxy
        return cls(url if "://" in url or not url else f"http://{url}", settings.no_proxy)

    def url_for(self, url: str) -> str:
        """The proxy for requests to `url`; "" if they are sent directly."""
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".")
        if parts.scheme != "https" or any(_matches(entry, host, parts.port or 443) for entry in self.exempt):
            return ""
        return self.url

    @property
    def address(self) -> str:
        """Without the user and the password."""
        return urlsplit(self.url).netloc.rpartition("@")[2]

    def __repr__(self) -> str:
        return f"Proxy({self.address!r}, {self.exempt!r})"


def _matches(entry: str, host: str, port: int) -> bool:
    """An entry is `*`, a network, or an address or domain with an optional port; a domain includes its subdomains."""
    name, entry_port = _split(entry)
    if entry_port and int(entry_port) != port:
        return False
    if name == "*" or host == name.removeprefix("*").removeprefix("."):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.endswith(f".{name.removeprefix('*').removeprefix('.')}")
    return _is_in_network(address, name)


def _is_in_network(address: ipaddress.IPv4Address | ipaddress.IPv6Address, name: str) -> bool:
    try:
        return address in ipaddress.ip_network(name, strict=False)
    except ValueError:
        return False


def _split(entry: str) -> tuple[str, str]:
    """The name or address, and the port or ""."""
    match = re.fullmatch(r"\[(.+)\](?::([0-9]+))?|([^:]+):([0-9]+)", entry)
    return (match[1] or match[3], match[2] or match[4] or "") if match else (entry, "")
