"""Job `infer`: samples through the model, answers and telemetry windows out (child process only)."""

from __future__ import annotations

import time
from typing import Any

from edgeq_agent import wire
from edgeq_agent.calls.call import Response
from edgeq_agent.errors import AgentError
from edgeq_agent.inference import model, stats
from edgeq_agent.telemetry import windows


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


def run(job: wire.Json, response: Response) -> wire.Json:
    """Return predictions, confidences, latencies; each `window` samples make one `window` event.

    A sample that is not finite, or whose output is not, or on which the runtime gives up, gets class -1 with
    confidence 0 and counts as an error of its kind.
    """
    loaded = model.load(str(job["module"]), str(job["model_path"]), int(job["threads"]))
    payload = model.open_npz(str(job["payload_path"]), "payload")
    samples = model.arrays(payload, "input", loaded.inputs, "payload")
    reference = windows.load(job["reference_path"], loaded.classes)
    gathered = _Run(bool(job["outputs"]))
    size = int(job["window"])
    for start in range(0, len(samples[0]), size):
        part = [array[start : start + size] for array in samples]
        _one_window(loaded, part, reference, gathered, response)
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


def _one_window(
    loaded: model.Model, samples: list[Any], reference: windows.Reference, gathered: _Run, response: Response
) -> None:
    """Run the samples of one window, each that can be run, and send the window."""
    import numpy as np

    window = windows.Window(reference)
    fed = _finite(samples)
    _error(window, gathered, "input_not_finite", len(fed) - int(fed.sum()))
    feeds = [model.to_input(_zeroed(array, fed), tensor) for array, tensor in zip(samples, loaded.inputs)]
    answered = fed.copy()
    raw: list[Any] = []
    latencies: list[int] = []
    for row in np.flatnonzero(fed):
        try:
            latency_ns = model.invoke(loaded, feeds, int(row))
        except AgentError:
            answered[row] = False
            _error(window, gathered, "invoke", 1)
            continue
        raw.append(model.output(loaded))
        latencies.append(latency_ns)
    good, predicted, confidence = _judge(loaded, raw, reference, answered, gathered)
    _error(window, gathered, "output_not_finite", int(answered.sum() - good.sum()), counted=True)
    gathered.latencies.extend(latencies)
    # Processor time: what telemetry costs, not how long another process was let in meanwhile.
    began = time.thread_time_ns()
    for latency_ns in latencies:
        window.latency(latency_ns)
    for number, (array, tensor) in enumerate(zip(samples, loaded.inputs)):
        window.inputs(number, _real(array[fed], tensor))
    window.outputs(predicted[good], confidence[good])
    response.send(wire.window(window.body()))
    gathered.telemetry_ns += time.thread_time_ns() - began


def _finite(samples: list[Any]) -> Any:
    """Return for each sample whether all its values are finite."""
    import numpy as np

    good = np.ones(len(samples[0]), bool)
    for array in samples:
        if array.dtype.kind == "f":
            good &= np.isfinite(array.reshape(len(array), -1)).all(axis=1)
    return good


def _zeroed(array: Any, keep: Any) -> Any:
    """Return the samples with zeros where they are not kept: a NaN has no integer to be cast to."""
    import numpy as np

    return (
        array
        if keep.all()
        else np.where(keep.reshape([-1] + [1] * (array.ndim - 1)), array, array.dtype.type(0))
    )


def _judge(
    loaded: model.Model, raw: list[Any], reference: windows.Reference, answered: Any, gathered: _Run
) -> Any:
    """Return (good, predicted, confidence), one entry a sample of the window; keep them for the response."""
    import numpy as np

    good = answered.copy()
    predicted = np.full(len(good), -1, np.int64)
    confidence = np.zeros(len(good))
    outputs = np.zeros((len(good), loaded.classes))
    if raw:
        values = model.to_real(np.stack(raw), loaded.outputs[0]).reshape(len(raw), -1)
        good[answered], predicted[answered], confidence[answered] = windows.judge(values, reference)
        outputs[good] = values[good[answered]]
    gathered.predicted.extend(predicted.tolist())
    gathered.confidence.extend(confidence.tolist())
    if gathered.keep_outputs:
        gathered.outputs.extend(outputs.tolist())
    return good, predicted, confidence


def _error(window: windows.Window, gathered: _Run, kind: str, count: int, *, counted: bool = False) -> None:
    if count:
        window.error(kind, count, counted=counted)
        gathered.errors[kind] = gathered.errors.get(kind, 0) + count


def _real(array: Any, tensor: model.Tensor) -> Any:
    """Return the real values of samples: those of the input's own integer dtype are dequantized."""
    import numpy as np

    return model.to_real(array, tensor) if array.dtype == tensor.dtype else array.astype(np.float64)


def _latency(latencies: list[int]) -> wire.Json:
    if not latencies:
        return {"p50": None, "p95": None, "max": None}
    ordered = sorted(latencies)
    return {"p50": stats.percentile(ordered, 50), "p95": stats.percentile(ordered, 95), "max": ordered[-1]}
