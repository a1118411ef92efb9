"""Channels as numbered atoms: which channels of which layers must stay or go together."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Atoms = npt.NDArray[np.int64]
"""For each position of a tensor's last axis the number of the channel that it carries."""


class AtomSet:
    """A union-find over channels; some are fixed and can never go."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._fixed: set[int] = set()

    def new(self, count: int, *, fixed: bool = False) -> Atoms:
        """Return `count` new channels."""
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        made = np.arange(first, first + count, dtype=np.int64)
        if fixed:
            self.fix(made)
        return made

    def root(self, atom: int) -> int:
        """Return the number that stands for all channels tied to this one."""
        while self._parent[atom] != atom:
            self._parent[atom] = self._parent[self._parent[atom]]
            atom = self._parent[atom]
        return atom

    def roots(self, atoms: Atoms) -> Atoms:
        """Return the roots of many."""
        return np.array([self.root(int(atom)) for atom in atoms], np.int64)

    def tie(self, one: Atoms, other: Atoms) -> None:
        """Make the channels of two tensors that meet position by position stay or go together."""
        for left, right in zip(one, other, strict=True):
            a, b = sorted((self.root(int(left)), self.root(int(right))))
            self._parent[b] = a
            if b in self._fixed:
                self._fixed.add(a)

    def fix(self, atoms: Atoms) -> None:
        """Keep these channels whatever comes."""
        self._fixed.update(int(root) for root in self.roots(atoms))

    def is_fixed(self, root: int) -> bool:
        """Return whether the channel must stay."""
        return root in self._fixed
