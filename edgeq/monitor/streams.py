"""The streams of a store: windows of one device, model and release, each with its reference and verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from edgeq.monitor.sketch import LatencySketch, merge_latency
from edgeq.monitor.verdict import Verdict, judge
from edgeq.store import Store, WindowRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One stream and what was found.

    Attributes:
        verdict: None where the store knows no reference of the release.
        latency: of all windows together; None where no inference succeeded.
        errors: failed inferences by kind.
    """

    device: str
    model: str
    release: str
    windows: int
    inferences: int
    errors: dict[str, int]
    latency: LatencySketch | None
    verdict: Verdict | None


def judge_store(
    store: Store, *, devices: Collection[str] = (), model: str | None = None, alpha: float = 0.001
) -> list[Judged]:
    """Judge every stream in the store, in the order in which they began.

    Args:
        devices: only these; all when empty.
        model: only this one.

    Raises:
        UsageError: alpha is no probability.
        StoreError: the store cannot be used.
    """
    streams: dict[tuple[str, str, str], list[WindowRecord]] = {}
    for window in store.windows(model=model):
        if not devices or window.device in devices:
            streams.setdefault((window.device, window.model, window.release), []).append(window)
    return [_judged(store, windows, alpha) for windows in streams.values()]


def _judged(store: Store, windows: list[WindowRecord], alpha: float) -> Judged:
    first = windows[0]
    known = store.release(first.release)
    reference = known.reference if known else None
    errors: Counter[str] = Counter()
    for window in windows:
        errors.update(window.body.get("errors", {}))
    return Judged(
        device=first.device,
        model=first.model,
        release=first.release,
        windows=len(windows),
        inferences=sum(int(window.body.get("inferences", 0)) for window in windows),
        errors=dict(errors),
        latency=merge_latency(window.body["latency"] for window in windows),
        verdict=None if reference is None else judge(windows, reference, alpha=alpha),
    )
