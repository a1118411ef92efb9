"""Histograms of a representative dataset and of its parts, from one pass over the samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np

from edgeq_converters.calibration.histogram import Histogram
from edgeq_converters.calibration.observe import observe, observe_groups
from edgeq_converters.data.partition import Partition
from edgeq_converters.data.samples import Samples, digests
from edgeq_converters.graph.model import Model
from edgeq_converters.progress import Advance

Histograms = Mapping[str, Histogram]
"""By tensor name."""


# No slots: the merged histograms are cached in the instance's dictionary.
@dataclass(frozen=True, kw_only=True, eq=False)
class Observed:
    """Histograms of every activation, counted apart for groups of samples.

    Attributes:
        groups: the histograms of each group.
        members: the digests of each group's samples; empty where they are not known.
    """

    groups: tuple[Histograms, ...]
    members: tuple[tuple[bytes, ...], ...] = ()

    @cached_property
    def all(self) -> Histograms:
        """The histograms of all samples."""
        return _merged(self.groups)

    def mapped(self, change: Callable[[Histograms], Histograms | None]) -> Observed | None:
        """Return each group's histograms after a change of the model; None where one is not known then."""
        groups = [change(group) for group in self.groups]
        known = tuple(group for group in groups if group is not None)
        return Observed(groups=known, members=self.members) if len(known) == len(groups) else None

    def of(self, samples: Samples) -> Histograms | None:
        """Return the histograms of some of the samples; None where they are not whole groups."""
        given = Counter(digests(samples))
        parts = [number for number, each in enumerate(self.members) if each and each[0] in given]
        if not parts or Counter(key for number in parts for key in self.members[number]) != given:
            return None
        return _merged([self.groups[number] for number in parts])


def observe_parts(model: Model, samples: Samples, parts: Partition | None, *, advance: Advance) -> Observed:
    """Return the histograms of all samples, counted apart for the samples that each fold holds out.

    One pass replaces a pass over all samples and one over those that each fold fits on.

    Args:
        parts: a partition of the samples; None counts them together.
        advance: called with the number of samples of each batch.

    Raises:
        ConverterError: EQ309 naming the first tensor with NaN or infinity.
    """
    keys = digests(samples)
    # The samples of a larger batch share a run, and those of a sequence the state before them, unless they
    # have recorded states.
    if parts is None or samples.batch != 1 or (samples.begins is not None and not samples.states):
        return Observed(groups=(observe(model, samples, advance=advance),), members=(tuple(keys),))
    fold_of = {key: number for number, fold in enumerate(parts.folds) for key in digests(fold.held_out)}
    number_of = np.array([fold_of.get(key, len(parts.folds)) for key in keys])
    used = np.unique(number_of)
    groups = observe_groups(model, samples, np.searchsorted(used, number_of), advance=advance)
    members = tuple(tuple(np.array(keys, dtype="S32")[number_of == number]) for number in used)
    return Observed(groups=groups, members=members)


def _merged(groups: tuple[Histograms, ...] | list[Histograms]) -> Histograms:
    if len(groups) == 1:
        return groups[0]
    return {name: reduce(Histogram.merge, [group[name] for group in groups]) for name in groups[0]}
