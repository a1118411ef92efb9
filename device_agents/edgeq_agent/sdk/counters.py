"""One runtime's part in a model's counters: what is new since it told the last time."""

from __future__ import annotations

from typing import Any

from edgeq_agent.activation import counters
from edgeq_agent.sdk.call_metrics import Totals
from edgeq_agent.storage import process_token
from edgeq_agent.storage.home import Home


class Counters:
    """Adds a runtime's totals to the counters that all processes of the model share."""

    def __init__(self, place: Home, model: str) -> None:
        self._place, self._model = place, model
        self._me = process_token.token()
        self._told: dict[str, Totals] = {}
        self._last: Any = None

    def tell(
        self, current: str | None, serves: str | None, totals: dict[str, Totals], refused: dict[str, str]
    ) -> bool:
        """Add what is new since the last time; tell whether it was written (another process may be at it).

        Args:
            current: the release that the link names.
            serves: the release that this process answers with; None takes leave.
            totals: by release, counted since this runtime began.
        """
        state = (current, serves, dict(refused), {name: vars(count) for name, count in totals.items()})
        if state == self._last:
            return True
        with counters.trying(self._place, self._model, current) as body:
            if body is None:
                return False
            for release, count in totals.items():
                _add(counters.of(body, release), count, self._told.get(release, Totals()))
            for release, problem in refused.items():
                if body["refused"].get(release) != problem:
                    body["refused"][release] = problem
                    counters.add_errors(counters.of(body, release), "release", 1)
            body["processes"].pop(self._me, None)
            if serves is not None:
                body["processes"][self._me] = serves
        self._told = {name: Totals(count.calls, count.late, count.errors) for name, count in totals.items()}
        self._last = state
        return True


def _add(known: Any, now: Totals, before: Totals) -> None:
    known["calls"] += now.calls - before.calls
    known["deadline_misses"] += now.late - before.late
    for kind, count in now.errors.items():
        counters.add_errors(known, kind, count - before.errors.get(kind, 0))
