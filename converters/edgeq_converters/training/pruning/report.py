"""The report of a pruned conversion: sizes, latency and accuracy before and after."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class BeforeAfter(Generic[T]):
    """A figure of the unpruned and of the pruned model."""

    before: T
    after: T


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedLayer:
    """A layer's channels, or its weights that are not zero, before and after."""

    layer: str
    before: int
    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UnprunedLayer:
    """A layer that was not pruned, and the reason."""

    layer: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterCounts:
    """Parameters of the Keras model; `nonzero` counts those after pruning that are not zero."""

    before: int
    after: int
    nonzero: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightCounts:
    """Weights stored in a .tflite file, and how many of them are zero."""

    weights: int
    zero_weights: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyQuartiles:
    """Median latency in nanoseconds, and its quartiles over the rounds."""

    p50: float
    quartile_low: float
    quartile_high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningAccuracy:
    """Top-1 on the held-out samples, 0..1; None without labels.

    Attributes:
        before: of the unpruned Keras model.
        pruned: after pruning, before re-tuning.
        tuned: after re-tuning.
        file_before, file_after: of the converted files without and with pruning.
        samples: number of held-out samples.
    """

    before: float | None
    pruned: float | None
    tuned: float | None
    file_before: float | None
    file_after: float | None
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningLoss:
    """Mean loss of the user's on the held-out samples; the attributes are those of `PruningAccuracy`."""

    before: float
    pruned: float
    tuned: float
    file_before: float
    file_after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningReport:
    """What was pruned and what it gained.

    Attributes:
        epochs: of re-tuning.
        left: the layers that were not pruned.
        size_bytes, compressed_bytes: of the written file, as it is and compressed with zlib level 9.
        latency_ns: on this machine, one thread.
        speedup: median latency before over after.
        zeros_kept: number of pruned weights that are still exactly zero in the file; None for channels.
        bought: the gain in words.
        useless: in words why the written file is useless; None where it is not.
        loss: with a loss of the user's; None without.
        rounds: of pruning and re-tuning.
    """

    kind: str
    ratio: float
    epochs: int
    seed: int
    distilled: bool
    layers: tuple[PrunedLayer, ...]
    left: tuple[UnprunedLayer, ...]
    parameters: ParameterCounts
    size_bytes: BeforeAfter[int]
    compressed_bytes: BeforeAfter[int]
    file_weights: BeforeAfter[WeightCounts]
    latency_ns: BeforeAfter[LatencyQuartiles]
    speedup: float
    accuracy: PruningAccuracy
    zeros_kept: int | None
    bought: str
    useless: str | None = None
    loss: PruningLoss | None = None
    rounds: int = 1

    def to_json(self) -> dict[str, Any]:
        """Return the report as `pruning` of `edgeq.convert/1`; `zeros_kept` is absent for channels."""
        body = asdict(self)
        if self.zeros_kept is None:
            del body["zeros_kept"]
        return body
