"""Map errors of a request to an HTTP status and a one-line message."""

from __future__ import annotations

from typing import Type

from edgeq_agent.errors import BAD_REQUEST, UNKNOWN_MODEL, AgentError, one_line
from edgeq_agent.sdk.errors import (
    DeadlineMissed,
    FeedbackRefused,
    InputMismatch,
    InputNotFinite,
    NoSuchRelease,
    RuntimeClosed,
    SessionEnded,
    SessionsFull,
)

_STATUSES: list[tuple[Type[AgentError], int]] = [
    (InputMismatch, 400),
    (InputNotFinite, 400),
    (NoSuchRelease, 404),
    (FeedbackRefused, 409),
    (SessionEnded, 409),
    (SessionsFull, 503),
    (RuntimeClosed, 503),
    (DeadlineMissed, 504),
]
_BY_CODE = {BAD_REQUEST: 400, UNKNOWN_MODEL: 404}


class Refused(Exception):
    """A request that gets an error response.

    Args:
        status: the HTTP status.
        close: close the connection after the response, because the rest of its bytes is not a request.
    """

    def __init__(self, status: int, message: str, close: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.close = close


def refusal(error: AgentError) -> Refused:
    """Return the error response for an error of the runtime."""
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            return Refused(status, one_line(error))
    return Refused(_BY_CODE.get(error.code, 500), one_line(error))
