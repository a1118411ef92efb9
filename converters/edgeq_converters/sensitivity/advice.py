"""Turn a sensitivity analysis into advice, one sentence per finding."""

from __future__ import annotations

import math

from edgeq_converters.sensitivity.values import OpSensitivity, Sensitivity

# An operation stands out if the summed noise would be at least this much lower without it.
STANDS_OUT_DB = 1.0
# The least gain that is worth a sentence.
WORTH_DB = 0.5
# If channels differ by more than this, one scale leaves the small ones fewer than four bits.
_CHANNELS_APART = 16.0
# Outliers that stretch a range this much cost every other value one bit.
_STRETCHED = 2.0
# Above about this SQNR, more of it no longer shows in the accuracy.
_HIGH_DB = 45.0


def advise_operation(op: OpSensitivity, *, calibrator: str, int8_db: float) -> tuple[str, ...]:
    """Return advice on one operation; empty if it costs little."""
    if op.alone_db is None or op.cost_db is None or op.alone_db > _HIGH_DB:
        return ()
    sentences: list[str] = []
    label = f"op {op.index} ({op.op})"
    if op.released_db is not None and op.released_db - int8_db >= WORTH_DB:
        sentences.append(
            f"{label} costs {op.cost_db:.1f} dB: leave it float, which raises the SQNR from {int8_db:.1f} to "
            f"{op.released_db:.1f} dB"
        )
    better = {name: gain for name, value in op.other_ranges_db.items() if (gain := value - op.alone_db) > 0}
    best = max(better, key=lambda name: better[name], default=None)
    if best is not None and better[best] >= WORTH_DB:
        sentences.append(
            f"{label}: try --calibrator {best} ({op.alone_db:.1f} dB alone with {calibrator}, "
            f"{op.alone_db + better[best]:.1f} dB with {best})"
        )
    if op.cost_db >= STANDS_OUT_DB:
        sentences.extend(_distribution_advice(op, label))
        if not sentences:
            sentences.append(
                f"{label} costs {op.cost_db:.1f} dB, but to leave it float gains little, because its "
                "neighbours add noise too: find several to leave float with `edgeq search BLUEPRINT`"
            )
    return tuple(sentences)


def _distribution_advice(op: OpSensitivity, label: str) -> list[str]:
    sentences = []
    spread = op.activation
    if spread is not None and spread.channel_ratio is not None and spread.channel_ratio > _CHANNELS_APART:
        sentences.append(
            f"{label}: the largest channel of its output is {spread.channel_ratio:.0f} times the median one, "
            "and all share one scale: use equalization, or leave it float"
        )
    elif spread is not None and spread.outlying > _STRETCHED:
        sentences.append(
            f"{label}: the outermost 0.02 % of its output widen the range {spread.outlying:.1f} times: "
            "check these samples, or use a calibrator that clips them"
        )
    return sentences


def advise_model(result: Sensitivity) -> tuple[str, ...]:
    """Return advice on the whole model."""
    named = sorted((op for op in result.ops if op.cost_db is not None), key=lambda op: -(op.cost_db or 0.0))
    if not named:
        return ("no operation can be quantized to int8",)
    if math.isinf(result.int8_db) or result.int8_db > _HIGH_DB:
        return (f"the SQNR with all operations int8 is {result.int8_db:.1f} dB: nothing needs to be done",)
    sentences: list[str] = []
    worst = named[0]
    if (worst.cost_db or 0.0) < STANDS_OUT_DB:
        sentences.append(
            "no operation stands out: the noise is spread over the graph, so float regions gain little; "
            "correction of all operations (the default of a conversion) helps most"
        )
    best = max(result.float_steps, key=lambda step: step.sqnr_db, default=None)
    if best is not None and best.sqnr_db - result.int8_db >= WORTH_DB:
        kept = ", ".join(str(op.index) for op in result.ops if op.name in best.float_ops)
        sentences.append(
            f"with ops {kept} left float: {best.sqnr_db:.1f} dB instead of {result.int8_db:.1f}; "
            "`edgeq search BLUEPRINT` weighs this against size and latency"
        )
    return tuple(sentences)
