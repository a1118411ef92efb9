"""Which engine answers which call: one for all, or an arm for each key; a plan is replaced, never changed."""

from __future__ import annotations

import os
import random
from typing import Callable, Mapping, NamedTuple

from edgeq_agent.releases import release_store
from edgeq_agent.sdk.call_metrics import ALONE, Side
from edgeq_agent.sdk.engine import Engine
from edgeq_agent.sdk.errors import SplitUnusable
from edgeq_agent.sdk.release_names import release_named
from edgeq_agent.split import ab_split
from edgeq_agent.split.ab_split import Split
from edgeq_agent.storage.home import Home

Load = Callable[[str, Side], Engine]


class Plan(NamedTuple):
    """What serves from one moment on.

    Attributes:
        default: the engine of calls without a key; with arms, that of the device's own key.
        drawn: each call without a key is drawn by itself, by chance, instead.
        arms: (name, weight), empty without a split; `engines` in the same order.
    """

    default: Engine
    arms: tuple[tuple[str, float], ...]
    engines: tuple[Engine, ...]
    salt: str
    drawn: bool = False

    def engine(self, key: object) -> Engine:
        """Return the engine of a call's key."""
        if not self.arms:
            return self.default
        if key is None:
            return self._by_chance() if self.drawn else self.default
        return self.engines[ab_split.choose(self.arms, self.salt, str(key))]

    def _by_chance(self) -> Engine:
        weights = [weight for _, weight in self.arms]
        return random.choices(self.engines, weights)[0]  # noqa: S311 - no secret

    def all(self) -> tuple[Engine, ...]:
        """Return every engine of the plan."""
        return self.engines or (self.default,)


class Sources(NamedTuple):
    """From where a runtime learns what is to serve.

    Attributes:
        weights: the application's own split; None: the device's split.json; False: no split.
        device_id: the key of calls without one.
    """

    home: Home
    model: str
    weights: Mapping[str, float] | bool | None
    device_id: str

    def mark(self) -> tuple[object, ...]:
        """Return what changes when something else is to serve; costs two system calls."""
        try:
            split = os.stat(ab_split.path_of(self.home, self.model))
            described = (split.st_ino, split.st_mtime_ns, split.st_size)
        except FileNotFoundError:
            described = (0, 0, 0)
        return (release_store.current(self.home, self.model), *described)

    def split(self) -> Split | None:
        """Return the split that is asked for.

        Raises:
            SplitUnusable: EQ546.
        """
        if self.weights is False:
            return None
        stored = ab_split.read(self.home, self.model)
        if stored is not None and not stored.counts_under(release_store.current(self.home, self.model)):
            stored = None  # another release was committed since, or is on trial
        if isinstance(self.weights, bool) or self.weights is None:
            return stored
        return ab_split.weighted(stored, self.weights, self.model)

    def plan(self, load: Load, before: Plan | None) -> Plan:
        """Return the plan, with engines of the plan before where they still serve, and new ones loaded.

        Raises:
            AgentError: EQ510, no release serves; SplitUnusable: EQ546; ReleaseRefused: EQ544, one does not
                load or is not right.
        """
        split = self.split()
        kept = {(engine.release, engine.side): engine for engine in before.all()} if before else {}

        def engine_of(release: str, side: Side) -> Engine:
            return kept.get((release, side)) or load(release, side)

        if split is None:
            return alone(engine_of(release_store.need_current(self.home, self.model), ALONE))
        # An arm without weight is never served: its model would only take memory.
        served = [arm for arm in split.arms if arm.weight > 0]
        named = [
            (
                release_named(self.home, self.model, arm.release, SplitUnusable),
                Side(arm.name, split.experiment),
            )
            for arm in served
        ]
        engines = tuple(engine_of(release, side) for release, side in named)
        arms = tuple((arm.name, arm.weight) for arm in served)
        default = engines[ab_split.choose(arms, split.salt, self.device_id)]
        return Plan(default, arms, engines, split.salt, split.draw == ab_split.BY_CALL)


def alone(engine: Engine) -> Plan:
    """Return the plan of one engine for all calls."""
    return Plan(engine, (), (), "")
