"""Values of a sensitivity analysis, which the worker writes and the host reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgeq_converters.values import OutputSqnr


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The distribution of a tensor's values.

    Attributes:
        central: (low, high) of the range without the outermost 0.01 % of values at each end.
        channel_ratio: largest over median of the channels' largest magnitudes, along the last axis of an
            activation and the output axis of a weight; None for a single channel.
        edges, counts: histogram of equal bins over the whole range; len(edges) == len(counts) + 1.
    """

    name: str
    minimum: float
    maximum: float
    central: tuple[float, float]
    channel_ratio: float | None
    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @property
    def outlying(self) -> float:
        """The width of the whole range, relative to the central one; 1 without outliers."""
        width = self.central[1] - self.central[0]
        return (self.maximum - self.minimum) / width if width > 0 else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OpSensitivity:
    """The cost of quantizing one operation to int8. SQNR is in dB against float, infinite without noise.

    The SQNR at the logits is that of the worst slice of the worst output: one number over all values would
    hide a dead slice of small values beside large ones.

    Attributes:
        name: the operation's first output tensor.
        alone_db: SQNR at the logits with only this operation quantized; None if it was not measured.
        alone_at: the output that `alone_db` is about, with its slices; None like it.
        cumulative_db: SQNR at the logits with this operation and all before it quantized.
        cumulative_at: the output that `cumulative_db` is about.
        local_db: SQNR of this operation's own output with all operations quantized.
        share: its share of the summed noise of all operations quantized alone, 0..1.
        cost_db: how much higher the SQNR of that sum would be without this operation's noise.
        other_ranges_db: {calibrator: SQNR like `alone_db`, with that calibrator's ranges}; worst ones only.
        released_db: SQNR at the logits with all operations quantized except this one; worst ones only.
        reason: why it was not measured.
        advice: recommendations, one sentence each.
    """

    index: int
    op: str
    name: str
    alone_db: float | None
    alone_at: OutputSqnr | None
    cumulative_db: float | None
    cumulative_at: OutputSqnr | None
    local_db: float | None
    share: float | None
    cost_db: float | None
    other_ranges_db: Mapping[str, float]
    released_db: float | None
    weights: Spread | None
    activation: Spread | None
    reason: str
    advice: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatStep:
    """The SQNR with the worst operations left float; each step leaves one more float.

    Attributes:
        float_ops: names of the operations that stay float.
        sqnr_db: SQNR of the worst slice at the logits with all others quantized.
    """

    float_ops: tuple[str, ...]
    sqnr_db: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """The cost of quantizing each operation of a model.

    Attributes:
        measured_at: names of the tensors at which the SQNR was measured.
        before: kinds of the final operations after those tensors: `SOFTMAX`, or the post-processing of
            detections, which lists boxes in an order of its own; empty if they are outputs.
        int8_db: SQNR of the worst slice with all operations quantized, without correction.
        int8_outputs: of each output with all operations quantized.
        ops: in order of execution.
        ranking: positions in `ops`, worst first, of the operations that were measured.
        float_steps: along the ranking; each step leaves one more of the worst operations float.
        notes: what was done, for the user.
        warnings: what may be wrong with the result.
    """

    measured_at: tuple[str, ...]
    before: tuple[str, ...]
    samples: int
    calibration_samples: int
    calibrator: str
    int8_db: float
    int8_outputs: tuple[OutputSqnr, ...]
    ops: tuple[OpSensitivity, ...]
    ranking: tuple[int, ...]
    float_steps: tuple[FloatStep, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    @property
    def has_slices(self) -> bool:
        """Whether there are several outputs, or slices of one, of which the worst counts."""
        return len(self.int8_outputs) > 1 or any(each.slices for each in self.int8_outputs)

    def to_dict(self) -> dict[str, Any]:
        """Return the value as JSON types (infinity is still a float), the steps under `walk`."""
        body = asdict(self)
        return {("walk" if key == "float_steps" else key): value for key, value in body.items()}
