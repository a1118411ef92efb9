"""The assignment of calls to engines: one for all calls, or one per arm of a split; immutable."""

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

LoadEngine = Callable[[str, Side], Engine]


class Routing(NamedTuple):
    """Assigns calls to engines.

    Attributes:
        default: the engine of calls without a key; with a split, that of the device's own key.
        by_call: calls without a key are assigned one by one, at random, instead.
        arms: (name, weight) of each; empty without a split. `engines` has the same order.
    """

    default: Engine
    arms: tuple[tuple[str, float], ...]
    engines: tuple[Engine, ...]
    salt: str
    by_call: bool = False

    def engine(self, key: object) -> Engine:
        """Return the engine for a call with this key."""
        if not self.arms:
            return self.default
        if key is None:
            return self._random_engine() if self.by_call else self.default
        return self.engines[ab_split.choose(self.arms, self.salt, str(key))]

    def _random_engine(self) -> Engine:
        weights = [weight for _, weight in self.arms]
        return random.choices(self.engines, weights)[0]  # noqa: S311 - no secret

    def all(self) -> tuple[Engine, ...]:
        """Return every engine."""
        return self.engines or (self.default,)


def single(engine: Engine) -> Routing:
    """Return the routing of all calls to one engine."""
    return Routing(engine, (), (), "")


class Router(NamedTuple):
    """Derives the routing from the device's files.

    Attributes:
        weights: the application's own split; None: the device's split.json; False: no split.
        device_id: the key of calls without one.
    """

    home: Home
    model: str
    weights: Mapping[str, float] | bool | None
    device_id: str

    def fingerprint(self) -> tuple[object, ...]:
        """Return a value that changes when the routing has to; costs two system calls.

        Its first item is the release that the link names.
        """
        try:
            status = os.stat(ab_split.path_of(self.home, self.model))
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
        except FileNotFoundError:
            stamp = (0, 0, 0)
        return (release_store.current(self.home, self.model), *stamp)

    def split(self) -> Split | None:
        """Return the split to apply, or None.

        Raises:
            SplitUnusable: EQ546.
        """
        if self.weights is False:
            return None
        stored = ab_split.read(self.home, self.model)
        if stored is not None and not stored.in_force(release_store.current(self.home, self.model)):
            stored = None  # another release was committed since, or is soaking
        if isinstance(self.weights, bool) or self.weights is None:
            return stored
        return ab_split.weighted(stored, self.weights, self.model)

    def route(self, load: LoadEngine, before: Routing | None) -> Routing:
        """Return the routing; engines of the previous one are kept where they still serve.

        Raises:
            AgentError: EQ510, no release serves. SplitUnusable: EQ546. ReleaseRefused: EQ544, a release does
                not load or gives wrong outputs.
        """
        split = self.split()
        kept = {(engine.release, engine.side): engine for engine in before.all()} if before else {}

        def engine_of(release: str, side: Side) -> Engine:
            return kept.get((release, side)) or load(release, side)

        if split is None:
            return single(engine_of(release_store.need_current(self.home, self.model), ALONE))
        # An arm without weight never serves: its model would only take memory.
        served = [arm for arm in split.arms if arm.weight > 0]
        resolved = [
            (
                release_named(self.home, self.model, arm.release, SplitUnusable),
                Side(arm.name, split.experiment),
            )
            for arm in served
        ]
        engines = tuple(engine_of(release, side) for release, side in resolved)
        arms = tuple((arm.name, arm.weight) for arm in served)
        default = engines[ab_split.choose(arms, split.salt, self.device_id)]
        return Routing(default, arms, engines, split.salt, split.draw == ab_split.BY_CALL)
