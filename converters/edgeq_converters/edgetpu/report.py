"""Edge TPU readiness: which operations would run on it, why others would not, and where the graph splits.

The rules are Coral's: the table "Supported operations" of https://coral.ai/docs/edgetpu/models-intro/ with
its known limitations, for compiler 16 and runtime 14, and the page's requirements for a whole model. The
compiler builds one TPU subgraph. From the first unsupported operation on, everything that depends on it runs
on the CPU, even operations that the TPU supports.
"""

from __future__ import annotations

import math
from typing import Any

from edgeq_converters.edgetpu import rules
from edgeq_converters.edgetpu.values import OpPlacement, Readiness
from edgeq_converters.graph import tflite_file, validate
from edgeq_converters.graph.model import Model


def readiness(model: Model) -> Readiness:
    """Return the readiness of a model's main graph."""
    parsed, graph = model.parsed, model.graph
    if validate.is_compiled(model):
        return _compiled(parsed, graph)
    on_cpu: set[int] = set()  # tensors computed on the CPU, and their dependents
    placements: list[OpPlacement] = []
    split: int | None = None
    for index, operator in enumerate(graph.operators):
        name = tflite_file.op_name(parsed, operator)
        why = rules.why_not(parsed, graph, operator, name)
        after = on_cpu.intersection(int(i) for i in operator.inputs if i >= 0)
        on_tpu = why is None and not after
        # A float input is quantized before the TPU subgraph begins, so its successors can stay on the TPU.
        entry = name == "QUANTIZE" and set(operator.inputs) <= set(graph.inputs)
        if not on_tpu and not entry:
            on_cpu.update(int(i) for i in operator.outputs)
            split = index if split is None else split
        supported = "supported" if on_tpu else "supported, but depends on an operation that runs on the CPU"
        placements.append(
            OpPlacement(
                index=index,
                op=name,
                maps=why is None,
                on_tpu=on_tpu,
                macs=_macs(graph, operator, name),
                reason=why or supported,
            )
        )
    total = sum(op.macs for op in placements)
    risks = list(rules.risks(parsed, graph))
    if len(parsed.subgraphs) > 1:
        risks.append(f"the model has {len(parsed.subgraphs)} subgraphs; the compiler accepts one")
    return Readiness(
        compiled=False,
        ops=tuple(placements),
        macs=total,
        macs_share=sum(op.macs for op in placements if op.on_tpu) / total if total else None,
        split_at=split,
        risks=tuple(risks),
    )


def _compiled(parsed: Any, graph: Any) -> Readiness:
    placements = []
    for index, operator in enumerate(graph.operators):
        name = tflite_file.op_name(parsed, operator)
        on_tpu = name == validate.COMPILED
        reason = "compiled for the Edge TPU" if on_tpu else "runs on the CPU"
        placements.append(
            OpPlacement(index=index, op=name, maps=on_tpu, on_tpu=on_tpu, macs=0, reason=reason)
        )
    return Readiness(compiled=True, ops=tuple(placements), macs=0, macs_share=None, split_at=None, risks=())


def _macs(graph: Any, operator: Any, name: str) -> int:
    """Return the multiply-accumulate operations of one operation; 0 for one without weights."""
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
