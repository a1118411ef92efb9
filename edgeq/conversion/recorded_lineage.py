"""Recorded lineages of a store by digest: how a file was made, and its source, and so on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeq.conversion.lineage import Lineage, lineages
from edgeq.store import Store

_ALL = 1_000_000


def lineages_by_digest(store: Store) -> dict[str, Mapping[str, Any]]:
    """Return every recorded lineage by the digest of its output."""
    # The newest record of a digest wins: it has the current paths.
    by_digest: dict[str, Mapping[str, Any]] = {}
    for run in store.runs(limit=_ALL):
        for lineage in lineages(run.body):
            by_digest.setdefault(str(lineage["output"]["sha256"]), lineage)
    return by_digest


def chain_of(known: Mapping[str, Mapping[str, Any]], digest: str) -> list[Lineage]:
    """Return the lineage of a digest, followed by that of its source, and so on; empty if it is not known.

    Raises:
        StoreError: a record cannot be read.
    """
    links: list[Lineage] = []
    seen: set[str] = set()
    while digest in known and digest not in seen:
        seen.add(digest)  # a tuning that kept the model unchanged has its source as output
        links.append(Lineage.from_json(known[digest]))
        digest = links[-1].source.sha256
    return links
