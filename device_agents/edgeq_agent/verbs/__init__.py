"""The agent's verbs: each parses its request, takes the lock and calls the domain.

`wire.VERBS` names the function of each verb. A function that recovers its model itself, because it takes the
lock and must fail when an interrupted activation cannot be finished, is marked with `recovers_itself`; before
every other verb the agent recovers what it can.
"""

from __future__ import annotations

import importlib
from typing import Callable

from edgeq_agent import wire
from edgeq_agent.calls.call import Call
from edgeq_agent.wire import Json

Verb = Callable[[Call], Json]

_RECOVER_THEMSELVES: set[Verb] = set()


def recovers_itself(verb: Verb) -> Verb:
    """Mark a verb that recovers its model itself, under the lock."""
    _RECOVER_THEMSELVES.add(verb)
    return verb


def load(name: str) -> Verb:
    """Import and return a verb; each is imported only when it is called, so that a probe stays quick."""
    module, _, function = wire.VERBS[name].partition(".")
    verb: Verb = getattr(importlib.import_module("edgeq_agent.verbs." + module), function)
    return verb


def needs_recovery(verb: Verb) -> bool:
    """Return whether models must be recovered before a verb."""
    return verb not in _RECOVER_THEMSELVES
