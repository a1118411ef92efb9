"""Add one runtime's new calls to the counters file that all processes of a model share."""

from __future__ import annotations

from typing import Any

from edgeq_agent.activation import counters
from edgeq_agent.activation.counters import NO_TROUBLE, SharedCounters, Trouble
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
        self._trouble = NO_TROUBLE

    def store(
        self,
        current: str | None,
        serves: str | None,
        totals: dict[str, Totals],
        refused: dict[str, str],
        trouble: Trouble = NO_TROUBLE,
    ) -> bool:
        """Add what is new since the last call; return False when another process holds the lock.

        Args:
            current: the release that the link names.
            serves: the release that this process answers with; None when the process ends.
            totals: counts by release since this runtime started.
            refused: releases that this runtime could not load, with the error.
            trouble: failures and restarts of the recorder since this runtime started.
        """
        state = (
            current,
            serves,
            dict(refused),
            {name: vars(count) for name, count in totals.items()},
            trouble,
        )
        if state == self._last:
            return True
        with counters.trying(self._home, self._model, current) as shared:
            if shared is None:
                return False
            for release, count in totals.items():
                _add(shared, release, count, self._stored.get(release, Totals()))
            for release, problem in refused.items():
                shared.refuse(release, problem)
            before = self._trouble
            shared.add_trouble(
                Trouble(
                    trouble.failures - before.failures, trouble.restarts - before.restarts, trouble.problem
                )
            )
            shared.leave(self._token)
            if serves is not None:
                shared.enter(self._token, serves)
        self._stored = {name: Totals(count.calls, count.late, count.errors) for name, count in totals.items()}
        self._last = state
        self._trouble = trouble
        return True


def _add(shared: SharedCounters, release: str, now: Totals, before: Totals) -> None:
    shared.add(release, calls=now.calls - before.calls, deadline_misses=now.late - before.late)
    for kind, count in now.errors.items():
        shared.add_errors(release, kind, count - before.errors.get(kind, 0))
