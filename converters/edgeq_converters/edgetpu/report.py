"""Edge TPU readiness: which operations would run on it, which not and why, and where the graph splits.

The rules are Coral's: the table "Supported operations" of https://coral.ai/docs/edgetpu/models-intro/ with
its known limitations, for compiler 16 and runtime 14, and the page's requirements for a model as a whole. The
compiler makes one part for the TPU: from the first operation that cannot run there, all that depends on it
runs on the processor, also what the TPU could do.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from edgeq_converters.edgetpu import rules
from edgeq_converters.graph import tflite_file, validate

PAGE = "https://coral.ai/docs/edgetpu/models-intro/#supported-operations"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """Where one operation would run.

    Attributes:
        maps: whether the operation by itself is one that the Edge TPU takes.
        on_tpu: whether it would run there: it maps, and nothing before it fell to the processor.
        macs: multiplications with additions.
        reason: why it does not map, or what it depends on.
    """

    index: int
    op: str
    maps: bool
    on_tpu: bool
    macs: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """What an Edge TPU would take of a model.

    Attributes:
        compiled: whether the model is compiled already; then `on_tpu` means its custom operation.
        macs_share: share of the multiplications that would run on the TPU; None where there are none, and for
            a compiled model, whose inside cannot be seen.
        split_at: index of the first operation that falls to the processor and takes others with it.
        risks: what the table does not forbid and the compiler may still refuse.
    """

    compiled: bool
    ops: tuple[Fate, ...]
    macs: int
    macs_share: float | None
    split_at: int | None
    risks: tuple[str, ...]
    page: str = PAGE

    def to_dict(self) -> dict[str, Any]:
        """Return the value as JSON types."""
        return asdict(self)

    def summary(self) -> dict[str, Any]:
        """Return the value without its operations."""
        split = next((fate for fate in self.ops if fate.index == self.split_at), None)
        return {
            "compiled": self.compiled,
            "operations": len(self.ops),
            "maps": sum(fate.maps for fate in self.ops),
            "on_tpu": sum(fate.on_tpu for fate in self.ops),
            "macs": self.macs,
            "macs_share": self.macs_share,
            "split_at": split and {"index": split.index, "op": split.op, "reason": split.reason},
            "risks": list(self.risks),
            "page": self.page,
        }


def readiness(model: Any) -> Readiness:
    """Return what an Edge TPU would take of a parsed model's main graph."""
    graph = model.subgraphs[0]
    if validate.is_compiled(model):
        return _compiled(model, graph)
    fallen: set[int] = set()  # tensors that the processor computes, and what depends on them
    fates: list[Fate] = []
    split: int | None = None
    for index, operator in enumerate(graph.operators):
        name = tflite_file.op_name(model, operator)
        why = rules.why_not(model, graph, operator, name)
        after = fallen.intersection(int(i) for i in operator.inputs if i >= 0)
        on_tpu = why is None and not after
        # Quantizing a float input is done before the TPU's part begins: it takes nothing with it.
        entry = name == "QUANTIZE" and set(operator.inputs) <= set(graph.inputs)
        if not on_tpu and not entry:
            fallen.update(int(i) for i in operator.outputs)
            split = index if split is None else split
        reason = why or ("maps" if on_tpu else "maps, but depends on an operation that runs on the processor")
        fates.append(
            Fate(
                index=index,
                op=name,
                maps=why is None,
                on_tpu=on_tpu,
                macs=_macs(graph, operator, name),
                reason=reason,
            )
        )
    total = sum(fate.macs for fate in fates)
    risks = list(rules.risks(model, graph))
    if len(model.subgraphs) > 1:
        risks.append(f"the model has {len(model.subgraphs)} subgraphs; the compiler takes one")
    return Readiness(
        compiled=False,
        ops=tuple(fates),
        macs=total,
        macs_share=sum(fate.macs for fate in fates if fate.on_tpu) / total if total else None,
        split_at=split,
        risks=tuple(risks),
    )


def _compiled(model: Any, graph: Any) -> Readiness:
    fates = []
    for index, operator in enumerate(graph.operators):
        name = tflite_file.op_name(model, operator)
        on_tpu = name == validate.COMPILED
        reason = "the part that was compiled for the Edge TPU" if on_tpu else "left to the processor"
        fates.append(Fate(index=index, op=name, maps=on_tpu, on_tpu=on_tpu, macs=0, reason=reason))
    return Readiness(compiled=True, ops=tuple(fates), macs=0, macs_share=None, split_at=None, risks=())


def _macs(graph: Any, operator: Any, name: str) -> int:
    """Return the multiplications of one operation; those without weights count none."""
    if name not in _WEIGHTED:
        return 0
    weights, output = (
        rules.shape(graph, operator.inputs[1]),
        rules.shape(graph, operator.outputs[0]),
    )
    if name == "CONV_2D":  # weights: out, height, width, in
        return math.prod(output) * math.prod(weights[1:])
    if name == "DEPTHWISE_CONV_2D":  # weights: 1, height, width, out
        return math.prod(output) * math.prod(weights[1:3])
    if name == "TRANSPOSE_CONV":  # inputs: output shape, weights (out, height, width, in), values
        return math.prod(rules.shape(graph, operator.inputs[2])) * math.prod(weights[:3])
    if name == "FULLY_CONNECTED":  # weights: out, in
        return math.prod(output) * weights[-1]
    given = rules.shape(graph, operator.inputs[0])  # BATCH_MATMUL
    return math.prod(output) * given[-1]


_WEIGHTED = {"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED", "BATCH_MATMUL"}
