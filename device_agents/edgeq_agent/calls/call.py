"""What a verb gets: the request, the payload's stream, the home and the answer."""

from __future__ import annotations

from typing import NamedTuple

from edgeq_agent.calls.answer import Answer
from edgeq_agent.calls.stdin import Source
from edgeq_agent.storage.home import Home
from edgeq_agent.wire import Json


class Call(NamedTuple):
    """One call of the agent."""

    request: Json
    payload: Source
    home: Home
    answer: Answer
