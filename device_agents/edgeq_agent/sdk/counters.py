"""Add one runtime's new calls to the counters file that all processes of a model share."""

from __future__ import annotations

from typing import Any

from edgeq_agent.activation import counters
from edgeq_agent.sdk.call_metrics import Totals
from edgeq_agent.storage import process_token
from edgeq_agent.storage.home import Home


class Counters:
    """Writes the growth of a runtime's totals into the shared counters."""

    def __init__(self, home: Home, model: str) -> None:
        self._home, self._model = home, model
        self._token = process_token.token()
        self._stored: dict[str, Totals] = {}
        self._last: Any = None

    def store(
        self, current: str | None, serves: str | None, totals: dict[str, Totals], refused: dict[str, str]
    ) -> bool:
        """Add what is new since the last call; return False when another process holds the lock.

        Args:
            current: the release that the link names.
            serves: the release that this process answers with; None when the process ends.
            totals: counts by release since this runtime started.
            refused: releases that this runtime could not load, with the error.
        """
        state = (current, serves, dict(refused), {name: vars(count) for name, count in totals.items()})
        if state == self._last:
            return True
        with counters.trying(self._home, self._model, current) as body:
            if body is None:
                return False
            for release, count in totals.items():
                _add(counters.of(body, release), count, self._stored.get(release, Totals()))
            for release, problem in refused.items():
                if body["refused"].get(release) != problem:
                    body["refused"][release] = problem
                    counters.add_errors(counters.of(body, release), "release", 1)
            body["processes"].pop(self._token, None)
            if serves is not None:
                body["processes"][self._token] = serves
        self._stored = {name: Totals(count.calls, count.late, count.errors) for name, count in totals.items()}
        self._last = state
        return True


def _add(known: Any, now: Totals, before: Totals) -> None:
    known["calls"] += now.calls - before.calls
    known["deadline_misses"] += now.late - before.late
    for kind, count in now.errors.items():
        counters.add_errors(known, kind, count - before.errors.get(kind, 0))
