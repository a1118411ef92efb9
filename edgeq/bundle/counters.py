"""Choose the release counter of a new release of a model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import count
from typing import Any

from edgeq.errors import BundleError
from edgeq_agent import wire

Manifest = Mapping[str, Any]
# Returns the counter for a manifest without one.
CounterRule = Callable[[Manifest], int]


def counted(known: Iterable[tuple[str, Manifest]], void: Collection[str]) -> list[Manifest]:
    """Return the manifests of the releases (ids with manifests) that no counter reset withdrew."""
    return [manifest for release, manifest in known if release not in void]


def above(known: Iterable[tuple[str, Manifest]], model: str, counter: int) -> list[str]:
    """Return the ids of a model's releases with a higher counter: what a reset to `counter` withdraws."""
    same_model = [(release, each) for release, each in known if each.get("model") == model]
    return [release for release, each in same_model if counter_of(each) > counter]


def following(known: Iterable[Manifest], withdrawn: Iterable[Manifest] = ()) -> CounterRule:
    """Return the rule that adds one to the highest known counter of the model.

    If the content equals the newest release, it keeps the counter and stays the same release.

    Args:
        withdrawn: releases that a counter reset withdrew. Devices refuse them, so the same content gets a
            counter that none of them has.
    """
    withdrawn = list(withdrawn)

    def rule(manifest: Manifest) -> int:
        highest = _highest(known, manifest)
        if highest is not None and _same(highest, manifest):
            return counter_of(highest)
        counter = (0 if highest is None else counter_of(highest)) + 1
        used = {counter_of(each) for each in withdrawn if _same(each, manifest)}
        return next(number for number in count(counter) if number not in used)

    return rule


def exactly(counter: int, known: Iterable[Manifest]) -> CounterRule:
    """Return the rule that uses this counter.

    The rule raises:
        BundleError: EQ605, devices that committed the newest known release would refuse the counter.
    """

    def rule(manifest: Manifest) -> int:
        highest = _highest(known, manifest)
        least = 1 if highest is None else counter_of(highest) + 1
        again = highest is not None and counter == counter_of(highest) and _same(highest, manifest)
        if not again and not least <= counter <= wire.LARGEST_COUNTER:
            raise BundleError(
                f"release counter of {manifest['model']}",
                expected=f"{least} or more",
                got=str(counter),
                hint="omit --counter to use the number after the newest release in this workspace",
                code="EQ605",
            )
        return counter

    return rule


def counter_of(manifest: Manifest) -> int:
    """Return a manifest's counter; 0 for one from before there were counters."""
    counter = manifest.get("counter", 0)
    return counter if isinstance(counter, int) else 0


def _highest(known: Iterable[Manifest], manifest: Manifest) -> Manifest | None:
    same_model = [each for each in known if each.get("model") == manifest["model"]]
    return max(same_model, key=counter_of, default=None)


def _same(one: Manifest, other: Manifest) -> bool:
    return {**one, "counter": 0} == {**other, "counter": 0} and counter_of(one) > 0
