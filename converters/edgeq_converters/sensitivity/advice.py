"""Advice: what measured figures of an operation say to do about it, in one sentence each."""

from __future__ import annotations

import math

from edgeq_converters.sensitivity.values import OpSensitivity, Sensitivity

# An operation stands out when without its noise the sum of all would be at least this much quieter.
STANDS_OUT_DB = 1.0
# Ranges of another calibrator, or releasing one operation, are worth a sentence from here on.
WORTH_DB = 0.5
# One scale for channels that differ more than this leaves the small ones fewer than four bits.
_CHANNELS_APART = 16.0
# Outliers that stretch a range this much cost a bit of every other value.
_STRETCHED = 2.0
# What a model keeps at about this SQNR and above is beyond what accuracy can show.
_HIGH_DB = 45.0


def of_operation(op: OpSensitivity, *, calibrator: str, int8_db: float) -> tuple[str, ...]:
    """Return what to do about one operation; empty where it costs little."""
    if op.alone_db is None or op.cost_db is None or op.alone_db > _HIGH_DB:
        return ()
    found: list[str] = []
    called = f"op {op.index} ({op.op})"
    if op.released_db is not None and op.released_db - int8_db >= WORTH_DB:
        found.append(
            f"{called} alone costs {op.cost_db:.1f} dB: leave it float "
            f"({int8_db:.1f} -> {op.released_db:.1f} dB with all others int8)"
        )
    better = {name: gain for name, value in op.other_ranges_db.items() if (gain := value - op.alone_db) > 0}
    best = max(better, key=lambda name: better[name], default=None)
    if best is not None and better[best] >= WORTH_DB:
        found.append(
            f"{called}: try --calibrator {best} ({op.alone_db:.1f} dB alone with {calibrator}, "
            f"{op.alone_db + better[best]:.1f} dB with {best})"
        )
    if op.cost_db >= STANDS_OUT_DB:
        found.extend(_shapes(op, called))
        if not found:
            found.append(
                f"{called} alone costs {op.cost_db:.1f} dB, yet releasing it alone gains little: its "
                "neighbours add the same noise; see the walk, or `edgeq search`"
            )
    return tuple(found)


def _shapes(op: OpSensitivity, called: str) -> list[str]:
    found = []
    seen = op.activation
    if seen is not None and seen.channel_ratio is not None and seen.channel_ratio > _CHANNELS_APART:
        found.append(
            f"{called}: one channel of its output is {seen.channel_ratio:.0f} times the median channel, and "
            "one scale serves all: equalization can even that out, else leave it float"
        )
    elif seen is not None and seen.outlying > _STRETCHED:
        found.append(
            f"{called}: the outermost 0.02 % of its output stretch the range {seen.outlying:.1f} times: "
            "look at these samples, or use a calibrator that clips them"
        )
    return found


def of_model(result: Sensitivity) -> tuple[str, ...]:
    """Return what the whole of it says."""
    named = sorted((op for op in result.ops if op.cost_db is not None), key=lambda op: -(op.cost_db or 0.0))
    if not named:
        return ("no operation can be quantized to int8",)
    if math.isinf(result.int8_db) or result.int8_db > _HIGH_DB:
        return (f"all operations int8 keep {result.int8_db:.1f} dB: nothing needs to be done",)
    found: list[str] = []
    worst = named[0]
    if (worst.cost_db or 0.0) < STANDS_OUT_DB:
        found.append(
            "no operation stands out: the noise is spread over the graph, so float islands buy little; "
            "correction of all of them (convert's default) is what helps"
        )
    best = max(result.walk, key=lambda step: step.sqnr_db, default=None)
    if best is not None and best.sqnr_db - result.int8_db >= WORTH_DB:
        kept = ", ".join(str(op.index) for op in result.ops if op.name in best.float_ops)
        found.append(
            f"with ops {kept} kept float: {best.sqnr_db:.1f} dB instead of {result.int8_db:.1f}; "
            "`edgeq search` weighs that against size and latency"
        )
    return tuple(found)
