"""What a request gets that cannot be answered: an HTTP status, and one line of why."""

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
)

_STATUSES: list[tuple[Type[AgentError], int]] = [
    (InputMismatch, 400),
    (InputNotFinite, 400),
    (NoSuchRelease, 404),
    (FeedbackRefused, 409),
    (RuntimeClosed, 503),
    (DeadlineMissed, 504),
]
_BY_CODE = {BAD_REQUEST: 400, UNKNOWN_MODEL: 404}


class Refused(Exception):
    """A request that is answered by an error.

    Args:
        status: of HTTP.
        close: end the connection after the answer: what else is on it cannot be read as a request.
    """

    def __init__(self, status: int, message: str, close: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.close = close


def refusal(error: AgentError) -> Refused:
    """Return what a caller gets for an error of the runtime."""
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            return Refused(status, one_line(error))
    return Refused(_BY_CODE.get(error.code, 500), one_line(error))
