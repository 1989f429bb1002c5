"""Which hosts a request may be sent to whose URL a caller chose: none in a private network, and no metadata service.

An address is recognized in all forms that the C library takes (decimal, octal, hexadecimal, shortened), and inside IPv6
addresses that stand for an IPv4 one.
"""

import ipaddress
import socket
import threading
from collections.abc import Collection
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

DEFAULT_PORTS: Final = {"http": 80, "https": 443}
MAX_URL_CHARACTERS: Final = 2048
RESOLVE_SECONDS: Final = 5.0
"""For a host's name while a request waits. One that takes longer counts as unknown; it is checked when connecting."""
NOT_PUBLIC: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        "168.63.129.16/32",  # Azure's metadata service, in a public range.
        "192.0.0.0/24",  # Protocol assignments (RFC 6890); Oracle's metadata service is at 192.0.0.192.
        "192.88.99.0/24",  # 6to4 relays (RFC 7526).
        "2002::/16",  # 6to4, which nobody serves any more (RFC 7526); whether it counts as global depends on Python's version.
        "100::/64",  # Discard only (RFC 6666).
        "2001::/23",  # Protocol assignments (RFC 2928), such as Teredo.
        "5f00::/16",  # Segment routing (RFC 9602).
        "64:ff9b:1::/48",  # NAT64 of a local network (RFC 8215).
        "fec0::/10",  # Site-local addresses (RFC 3879).
    )
)
NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


class PrivateAddress(OSError):
    """The host has no address that a request may be sent to."""


def origin_of(url: str) -> str:
    """Like a browser's: in lower case, without the scheme's default port. Raises ValueError."""
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    host = f"[{host}]" if ":" in host else host
    port = "" if parts.port in {None, DEFAULT_PORTS.get(parts.scheme)} else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"


def problem_of(url: str, allowed_origins: Collection[str] = ()) -> str:
    """Why no webhook may be sent to `url`, as the end of a sentence; "" if it may. Resolves the host's name.

    A host that cannot be resolved is accepted: its addresses are checked when connecting.
    """
    if problem := syntax_problem_of(url, allowed_origins):
        return problem
    if origin_of(url) in allowed_origins:
        return ""
    parts = urlsplit(url)
    addresses = _resolve_in_time(parts.hostname or "", _port_of(parts))
    return "" if all(is_public(address) for address in addresses) else "is in a private network"


def syntax_problem_of(url: str, allowed_origins: Collection[str] = ()) -> str:
    """As `problem_of`, without looking at the host's addresses."""
    try:
        parts, origin = urlsplit(url), origin_of(url)
    except ValueError:
        return "is not a URL"
    if len(url) > MAX_URL_CHARACTERS or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        return "is not a URL"
    if not parts.hostname or "%" in parts.netloc or "@" in parts.netloc or parts.fragment or parts.port == 0:
        return "must have a host, and neither a user nor a fragment"
    if parts.scheme != "https" and not (parts.scheme == "http" and origin in allowed_origins):
        return "must begin with https://"
    return ""


def _port_of(parts: SplitResult) -> int:
    return parts.port or DEFAULT_PORTS[parts.scheme]


def is_public(address: Address) -> bool:
    if any(address in network for network in NOT_PUBLIC):
        return False
    if (inner := _embedded(address)) is not None:
        return is_public(inner)
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def _embedded(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 address stands for, or to which a router would send it."""
    if isinstance(address, ipaddress.IPv6Address) and address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None


def public_addresses(host: str, port: int) -> list[str]:
    """The host's addresses to connect to. Raises PrivateAddress if any is private; OSError if it cannot be resolved."""
    addresses = _resolve(host, port)
    if not all(is_public(address) for address in addresses):
        raise PrivateAddress(f"{host} is in a private network")
    return [str(address) for address in addresses]


def _resolve(host: str, port: int) -> list[Address]:
    """Raises OSError."""
    try:
        found: list[Any] = socket.getaddrinfo(host.rstrip("."), port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found))
    except ValueError as error:  # UnicodeError: an empty or too long label.
        raise OSError(f"{host} is not a host name") from error


def _resolve_in_time(host: str, port: int) -> list[Address]:
    """[] if the host cannot be resolved within RESOLVE_SECONDS."""
    found: list[Address] = []

    def resolve() -> None:
        try:
            found.extend(_resolve(host, port))
        except OSError:
            return

    thread = threading.Thread(target=resolve, name="resolver", daemon=True)
    thread.start()
    thread.join(RESOLVE_SECONDS)
    return [*found]
