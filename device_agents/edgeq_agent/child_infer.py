"""Job `infer`: samples through the model, answers and telemetry windows out (child process only)."""

from __future__ import annotations

import json
import time
from typing import Any

from edgeq_agent import model, windows, wire
from edgeq_agent.answer import Answer


class _Run:
    """What one call gathers over all its windows."""

    def __init__(self, keep_outputs: bool) -> None:
        self.predicted: list[int] = []
        self.confidence: list[float] = []
        self.latencies: list[int] = []
        self.errors: dict[str, int] = {}
        self.outputs: list[list[float]] = []
        self.keep_outputs = keep_outputs
        self.telemetry_ns = 0


def run(job: wire.Json, answer: Answer) -> wire.Json:
    """Return predictions, confidences, latencies; each `window` samples make one `window` event.

    A sample that is not finite, or whose output is not, gives class -1 with confidence 0 and counts as an
    error.
    """
    loaded = model.load(str(job["module"]), str(job["model_path"]), int(job["threads"]))
    samples = model.arrays(
        model.open_npz(str(job["payload_path"]), "payload"), "input", loaded.inputs, "payload"
    )
    reference = windows.Reference(_reference(job), _classes(loaded))
    gathered = _Run(bool(job["outputs"]))
    size = int(job["window"])
    for start in range(0, len(samples[0]), size):
        _one_window(loaded, [array[start : start + size] for array in samples], reference, gathered, answer)
    result: dict[str, Any] = {
        "samples": len(samples[0]),
        "errors": gathered.errors,
        "predicted": gathered.predicted,
        "confidence": gathered.confidence,
        "latency_ns": _latency(gathered.latencies),
        "kernels": loaded.kernels,
        "telemetry_ns_per_inference": gathered.telemetry_ns // len(samples[0]),
    }
    if gathered.keep_outputs:
        result["outputs"] = gathered.outputs
    return result


def _reference(job: wire.Json) -> Any:
    if job["reference_path"] is None:
        return None
    with open(str(job["reference_path"]), "rb") as stream:
        return json.loads(stream.read().decode("utf-8"))


def _classes(loaded: model.Model) -> int:
    size = 1
    for length in loaded.outputs[0].shape:
        size *= length
    return size


def _one_window(
    loaded: model.Model, samples: list[Any], reference: windows.Reference, gathered: _Run, answer: Answer
) -> None:
    import numpy as np

    count = len(samples[0])
    finite = np.ones(count, bool)
    for array in samples:
        if array.dtype.kind == "f":
            finite &= np.isfinite(array.reshape(count, -1)).all(axis=1)
    feeds = [
        model.to_input(np.where(_columns(finite, array), array, 0), tensor)
        if not finite.all()
        else model.to_input(array, tensor)
        for array, tensor in zip(samples, loaded.inputs)
    ]
    window = windows.Window(reference)
    raw: list[Any] = []
    latencies: list[int] = []
    for row in np.flatnonzero(finite):
        latencies.append(model.invoke(loaded, feeds, int(row)))
        raw.append(model.output(loaded))
    good, predicted, confidence = _judge(loaded, raw, reference, finite, gathered)
    began = time.perf_counter_ns()
    _count(window, gathered, "input_not_finite", int(count - finite.sum()))
    _count(window, gathered, "output_not_finite", int(finite.sum() - good.sum()))
    answered = good[finite]
    for latency_ns, is_good in zip(latencies, answered):
        if is_good:
            window.latency(latency_ns)
    for number, (array, tensor) in enumerate(zip(samples, loaded.inputs)):
        window.inputs(number, _real(array[finite], tensor))
    window.outputs(predicted[good], confidence[good])
    answer.send(wire.window(window.body()))
    gathered.telemetry_ns += time.perf_counter_ns() - began
    gathered.latencies.extend(latencies)


def _judge(
    loaded: model.Model, raw: list[Any], reference: windows.Reference, finite: Any, gathered: _Run
) -> Any:
    """Return (good, predicted, confidence) per sample of the window; keep them for the answer."""
    import numpy as np

    good = finite.copy()
    predicted = np.full(len(finite), -1, np.int64)
    confidence = np.zeros(len(finite))
    outputs = np.zeros((len(finite), _classes(loaded)))
    if raw:
        values = model.to_real(np.stack(raw), loaded.outputs[0]).reshape(len(raw), -1)
        fine = np.isfinite(values).all(axis=1)
        good[finite] = fine
        outputs[good] = values[fine]
        scores = windows.softmax(values[fine]) if reference.logits else values[fine]
        predicted[good] = scores.argmax(axis=1)
        confidence[good] = scores.max(axis=1)
    gathered.predicted.extend(predicted.tolist())
    gathered.confidence.extend(confidence.tolist())
    if gathered.keep_outputs:
        gathered.outputs.extend(outputs.tolist())
    return good, predicted, confidence


def _columns(mask: Any, array: Any) -> Any:
    return mask.reshape([len(mask)] + [1] * (array.ndim - 1))


def _count(window: windows.Window, gathered: _Run, kind: str, count: int) -> None:
    if count:
        window.error(kind, count)
        gathered.errors[kind] = gathered.errors.get(kind, 0) + count


def _real(array: Any, tensor: model.Tensor) -> Any:
    """Return the real values of samples: those of the input's own integer dtype are dequantized."""
    import numpy as np

    return model.to_real(array, tensor) if array.dtype == tensor.dtype else array.astype(np.float64)


def _latency(latencies: list[int]) -> Any:
    if not latencies:
        return {"p50": None, "p95": None, "max": None}
    ordered = sorted(latencies)
    last = len(ordered) - 1
    return {
        "p50": ordered[last * 50 // 100],
        "p95": ordered[min(last, len(ordered) * 95 // 100)],
        "max": ordered[-1],
    }
