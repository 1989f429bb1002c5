"""Errors that groups of routes have in common."""

from typing import Final

from bff import errors
from bff.api.openapi.operation import Errors

PUBLIC_ERRORS: Final[Errors] = (errors.InternalError, errors.ServerRestarting)
"""Of every route but the health checks."""
AUTH_ERRORS: Final[Errors] = (errors.InvalidRequest, errors.Unauthorized, errors.Forbidden, *PUBLIC_ERRORS)
"""Of routes that authenticate the user."""
BODY_ERRORS: Final[Errors] = (errors.LengthRequired, errors.TooLarge, errors.UnsupportedMediaType)
"""Of routes that read a body."""
LIMIT_ERRORS: Final[Errors] = (errors.TooManyRequests, errors.ServerFull)
"""Of routes that wait for an upstream or stream."""
UPSTREAM_ERRORS: Final[Errors] = (errors.UpstreamError, errors.UpstreamUnavailable, errors.UpstreamTimeout)
"""Of routes that call the broker or the engine."""
REPLY_ERRORS: Final[Errors] = (errors.AnswerIncomplete, errors.ContextTooLong)
"""Of routes that wait for a whole reply."""
STORE_ERRORS: Final[Errors] = (*AUTH_ERRORS, errors.NotFound, errors.UpstreamUnavailable)
"""Of routes that authenticate the user and use the database, which may be unavailable."""
