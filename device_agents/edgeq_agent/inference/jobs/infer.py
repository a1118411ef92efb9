"""Job `infer`: run samples through the model, send predictions and telemetry windows (model process only)."""

from __future__ import annotations

import time
from typing import Any

from edgeq_agent import wire
from edgeq_agent.calls.call import Response
from edgeq_agent.errors import BAD_REQUEST, AgentError
from edgeq_agent.inference import model, npz, stats
from edgeq_agent.inference.job import InferJob, InferResult, JobContext, LatencySummary
from edgeq_agent.telemetry.window import to_json
from edgeq_agent.telemetry.window_builder import Reference, WindowBuilder, classify, load_reference

# The array of a payload that says which sequence each sample belongs to.
_SEQUENCE_IDS = "sequence_id"


class _Run:
    """The loaded model, reset where a sequence begins.

    Args:
        begins: whether each sample begins a sequence, shape (samples,).
    """

    def __init__(self, loaded: model.Model, begins: Any) -> None:
        self.loaded = loaded
        self._begins = begins
        self._done = 0

    def invoke(self, feeds: list[Any], row: int, position: int) -> int:
        """Run a sample and return the time in ns; samples may be left out, but not run out of order.

        Args:
            row: of the sample in `feeds`.
            position: of the sample in the payload.
        """
        # A sequence may begin at a sample that was left out.
        if self._begins[self._done : position + 1].any():
            self.loaded = model.fresh(self.loaded)
        self._done = position + 1
        return model.invoke(self.loaded, feeds, row)


class _Totals:
    """What all windows of one job add up to."""

    def __init__(self, keep_outputs: bool) -> None:
        self.predicted: list[int] = []
        self.confidence: list[float] = []
        self.latencies: list[int] = []
        self.errors: dict[str, int] = {}
        self.outputs: list[list[float]] = []
        self.keep_outputs = keep_outputs
        self.telemetry_ns = 0


def run(job: InferJob, context: JobContext) -> wire.Json:
    """Return the `InferResult`; each `window` samples make one `window` event.

    A sample gets class -1 and confidence 0, and counts as an error of its kind, when it is not finite, when
    the runtime fails on it, or when its output is not finite.

    The state of a model is reset before each sample. With an array `sequence_id` in the payload, it is reset
    where the id changes; with the option `sequence`, only before the first sample.
    """
    options = job.options
    loaded = model.load(job.module, job.files.model_path, options.threads, job.files.cpu_path)
    payload = npz.open_npz(job.payload_path, "payload")
    samples = model.arrays(payload, "input", loaded.inputs, "payload")
    reference = load_reference(job.files.reference_path, loaded.classes)
    begins = _begins(payload, len(samples[0]), options.sequence)
    running = _Run(loaded, begins)
    totals = _Totals(options.outputs)
    for start in range(0, len(samples[0]), options.window):
        part = [array[start : start + options.window] for array in samples]
        _run_window(running, part, start, reference, totals, context.response)
    return InferResult(
        samples=len(samples[0]),
        errors=totals.errors,
        predicted=totals.predicted,
        confidence=totals.confidence,
        latency_ns=_latency(totals.latencies),
        kernels=loaded.kernels,
        telemetry_ns_per_inference=totals.telemetry_ns // len(samples[0]),
        sequences=int(begins.sum()) if loaded.state.kept else None,
        outputs=totals.outputs if totals.keep_outputs else None,
    ).to_json()


def _begins(payload: Any, count: int, one_sequence: bool) -> Any:
    """Return whether each sample begins a sequence, shape (samples,).

    Raises:
        AgentError: EQ512, the ids of the sequences do not fit the samples.
    """
    import numpy as np

    ids = payload.get(_SEQUENCE_IDS)
    if ids is None:
        begins = np.full(count, not one_sequence)
    elif ids.shape != (count,) or ids.dtype.kind not in "iuU":
        raise AgentError(
            BAD_REQUEST,
            "payload " + _SEQUENCE_IDS,
            expected=f"({count},) of integers or texts",
            got=f"{ids.shape} of {ids.dtype}",
        )
    else:
        begins = np.concatenate([[True], ids[1:] != ids[:-1]])
    begins[0] = True
    return begins


def _run_window(
    running: _Run,
    samples: list[Any],
    start: int,
    reference: Reference,
    totals: _Totals,
    response: Response,
) -> None:
    """Run the usable samples of one window, which begins at sample `start`, and send the window."""
    import numpy as np

    loaded = running.loaded
    builder = WindowBuilder(reference)
    usable = _finite(samples)
    _add_error(builder, totals, "input_not_finite", len(usable) - int(usable.sum()))
    feeds = [model.to_input(_zeroed(array, usable), tensor) for array, tensor in zip(samples, loaded.inputs)]
    finished = usable.copy()
    raw: list[Any] = []
    latencies: list[int] = []
    for row in np.flatnonzero(usable):
        try:
            latency_ns = running.invoke(feeds, int(row), start + int(row))
        except AgentError:
            finished[row] = False
            _add_error(builder, totals, "invoke", 1)
            continue
        raw.append(model.output(running.loaded))
        latencies.append(latency_ns)
    finite, predicted, confidence = _classify(loaded, raw, reference, finished, totals)
    _add_error(builder, totals, "output_not_finite", int(finished.sum() - finite.sum()), counted=True)
    totals.latencies.extend(latencies)
    # Processor time: the cost of telemetry must not include the time of other processes.
    began = time.thread_time_ns()
    for latency_ns in latencies:
        builder.add_latency(latency_ns)
    for number, (array, tensor) in enumerate(zip(samples, loaded.inputs)):
        builder.add_input(number, _real(array[usable], tensor))
    builder.add_outputs(predicted[finite], confidence[finite])
    response.send(wire.window(to_json(builder.build())))
    totals.telemetry_ns += time.thread_time_ns() - began


def _finite(samples: list[Any]) -> Any:
    """Return for each sample whether all its values are finite, shape (samples,)."""
    import numpy as np

    finite = np.ones(len(samples[0]), bool)
    for array in samples:
        if array.dtype.kind == "f":
            finite &= np.isfinite(array.reshape(len(array), -1)).all(axis=1)
    return finite


def _zeroed(array: Any, keep: Any) -> Any:
    """Return the samples with zeros in place of those not kept: NaN cannot be cast to an integer."""
    import numpy as np

    return (
        array
        if keep.all()
        else np.where(keep.reshape([-1] + [1] * (array.ndim - 1)), array, array.dtype.type(0))
    )


def _classify(
    loaded: model.Model, raw: list[Any], reference: Reference, finished: Any, totals: _Totals
) -> Any:
    """Add the answers to totals; return (finite, predicted, confidence), one entry for each sample."""
    import numpy as np

    finite = finished.copy()
    predicted = np.full(len(finite), -1, np.int64)
    confidence = np.zeros(len(finite))
    outputs = np.zeros((len(finite), loaded.classes))
    if raw:
        values = model.to_real(np.stack(raw), loaded.outputs[0]).reshape(len(raw), -1)
        finite[finished], predicted[finished], confidence[finished] = classify(values, reference)
        outputs[finite] = values[finite[finished]]
    totals.predicted.extend(predicted.tolist())
    totals.confidence.extend(confidence.tolist())
    if totals.keep_outputs:
        totals.outputs.extend(outputs.tolist())
    return finite, predicted, confidence


def _add_error(
    builder: WindowBuilder, totals: _Totals, kind: str, count: int, *, counted: bool = False
) -> None:
    if count:
        builder.add_error(kind, count, counted=counted)
        totals.errors[kind] = totals.errors.get(kind, 0) + count


def _real(array: Any, tensor: model.Tensor) -> Any:
    """Return the real values of samples; samples in the input's own integer dtype are dequantized."""
    import numpy as np

    return model.to_real(array, tensor) if array.dtype == tensor.dtype else array.astype(np.float64)


def _latency(latencies: list[int]) -> LatencySummary:
    if not latencies:
        return LatencySummary(None, None, None)
    ordered = sorted(latencies)
    return LatencySummary(stats.percentile(ordered, 50), stats.percentile(ordered, 95), ordered[-1])
