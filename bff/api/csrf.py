"""Protection against cross-site requests: only our own pages, and those of `CORS_ALLOW_ORIGINS`, may use the API.

A forged request is one that a page of another origin lets its visitor's browser send, so that it carries credentials which
the browser adds by itself. It is refused by what the browser says about it, in headers that no page can set or remove:
`Sec-Fetch-Site` (https://www.w3.org/TR/fetch-metadata/), or else `Origin` (RFC 6454), compared with our own host.

- A request with neither header passes. Every current browser sends `Sec-Fetch-Site` over TLS and to localhost, and every
  browser since 2020 sends `Origin` with each POST, PUT, PATCH and DELETE, so this one is from no page: it is from curl,
  `requests.Session`, a client of /v1 and the like, whether or not their cookie jar has our cookie or a load balancer's. Go's
  `http.CrossOriginProtection` and Rails reason alike. Not covered: GETs of a page over plain HTTP, which have neither header.
- A request is checked if the browser may have added credentials. These are more than cookies: in the mode `proxy` the
  proxy may know its users by certificates, Kerberos or addresses, and may remove its cookies from the request. In the mode
  `anonymous` the request itself has the effect: it is paid for by us, it reaches a server on the visitor's own machine, and
  the response to one without a cookie (`SameSite=Lax` withholds it) would set a new one and so replace the visitor's user.
  A host application's own authenticator (`ChatBFF(authenticator=…)`) may use anything, most often a session cookie.
- In the mode `jwt` only AUTH_JWT_COOKIE is added by a browser, and it is ignored if there is an `Authorization` header,
  which no page can send to another origin without a preflight request.
- GETs are checked as well, as some start a reply and all streams are expensive; not those that a link may lead to, such as
  the page and its files. The blueprint says which (`hooks.add_hooks`), not the path, which a host application may choose.
"""

from typing import Final

from flask import request

from bff.api import services
from bff.api.cors import request_origin
from bff.api.services import Parts
from bff.errors import Forbidden

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


def check(parts: Parts, *, linkable: bool) -> None:
    """Raises Forbidden for a request that a browser sent for another page.

    `linkable`: GETs are not checked, as any page may link to them or embed them.
    """
    if linkable and request.method in SAFE_METHODS:
        return
    if _may_have_ambient_credentials(parts) and _is_cross_origin(parts.settings.cors_allow_origins):
        raise Forbidden


def is_own_request() -> bool:
    """Whether no page of another origin can have sent the request, whatever its content type.

    A body of a type other than text/plain and those of forms needs a preflight request, which protects it even from browsers
    that send neither `Origin` nor `Sec-Fetch-Site`. A text/plain body has no such protection, so one of these is required: a
    header that says where it comes from, which `check` has compared; a bearer token, which no page can add; or what Node's
    `fetch` sends, and no browser: `Sec-Fetch-Mode` with neither of the two others.
    """
    named = {"Origin", "Sec-Fetch-Site"} & set(request.headers.keys())
    if named:
        return not _is_cross_origin(services.parts().settings.cors_allow_origins)
    scheme = request.headers.get("Authorization", "").partition(" ")[0].lower()
    return scheme == "bearer" or request.headers.get("Sec-Fetch-Mode") == "cors"


def _may_have_ambient_credentials(parts: Parts) -> bool:
    """Whether the browser may have authenticated the request by itself."""
    settings = parts.settings
    if parts.is_host_authenticated or settings.auth_mode != "jwt":
        return True
    scheme = request.headers.get("Authorization", "").partition(" ")[0]  # As in `bff.auth.jwt`: it goes before the cookie.
    return bool(settings.auth_jwt_cookie) and settings.auth_jwt_cookie in request.cookies and not scheme


def _is_cross_origin(allowed_origins: tuple[str, ...]) -> bool:
    """Whether the request says that it comes from a page of another origin that is not allowed."""
    site, origin = request.headers.get("Sec-Fetch-Site", ""), request_origin()
    if site == "same-origin" or origin in allowed_origins:
        return False
    if site not in {"", "none"}:  # "none": sent by the user, such as by a bookmark.
        return True
    return bool(origin) and not _is_own(origin)


def _is_own(origin: str) -> bool:
    """Where a proxy terminates TLS and does not say so, our own origin is https although the request is not."""
    schemes = ("https",) if request.is_secure else ("https", "http")
    return any(origin == f"{scheme}://{request.host.lower()}" for scheme in schemes)
