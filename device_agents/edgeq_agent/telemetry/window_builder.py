"""Window builder: counts inferences by the bins of the drift reference until a window ends.

Runs in the process that runs the model; numpy is imported inside functions.
"""

from __future__ import annotations

import json
from typing import Any, Mapping

from edgeq_agent.errors import UNHEALTHY, AgentError
from edgeq_agent.platforms import registry as platforms
from edgeq_agent.storage import clock
from edgeq_agent.telemetry import ddsketch
from edgeq_agent.telemetry.window import InputCounts, OutputCounts, Window
from edgeq_agent.wire import REFERENCE_SCHEMA, Json

_CONFIDENCE_BINS = 20
# A wall clock that moves by more than this against the time since boot was set.
_CLOCK_STEP_NS = 1_000_000_000


class Reference:
    """The bins of a release's drift reference (`edgeq.reference/1`).

    Without a reference there are 20 equal bins of confidence and no inputs.

    Args:
        body: the reference's JSON, or None.
        classes: the model's outputs; used where the reference does not give their number.

    Attributes:
        classes: number of classes.
        logits: whether confidence is the softmax of the outputs, rather than the outputs.
        confidence: bin edges of the confidence, shape (bins + 1,).
        names: input names.
        edges: for each input and channel the bin edges, shape (bins + 1,).

    Raises:
        KeyError, TypeError, ValueError: the body is not a reference.
    """

    def __init__(self, body: Json | None, classes: int) -> None:
        known = body or {}
        output = known.get("output") or {}
        confidence = output.get("confidence") or {}
        equal = [number / _CONFIDENCE_BINS for number in range(_CONFIDENCE_BINS + 1)]
        self.classes = int(output.get("classes") or classes)
        self.logits = output.get("confidence_from") == "logits"
        self.confidence: Any = _edges(confidence.get("edges") or equal)
        inputs = known.get("inputs") or []
        self.names: list[str] = [str(entry.get("name", "")) for entry in inputs]
        self.edges: list[list[Any]] = [
            [_edges(channel["edges"]) for channel in entry["channels"]] for entry in inputs
        ]


def _edges(values: Any) -> Any:
    import numpy as np

    edges = np.asarray(values, np.float64)
    if edges.ndim != 1 or len(edges) < 2 or not np.isfinite(edges).all() or (np.diff(edges) < 0).any():
        raise ValueError("edges must be at least two finite numbers, ascending")
    return edges


def load_reference(path: str | None, classes: int) -> Reference:
    """Return the reference in a file, or the default bins when the release has none.

    Args:
        classes: the model's number of outputs.

    Raises:
        AgentError: EQ504, the file is not a valid reference.
    """
    if path is None:
        return Reference(None, classes)
    try:
        with open(path, "rb") as stream:
            body = json.loads(stream.read().decode("utf-8"))
        if body["schema"] != REFERENCE_SCHEMA:
            raise ValueError("schema {!r}".format(body["schema"]))
        return Reference(body, classes)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        problem = f"not a valid {REFERENCE_SCHEMA}: {error!r}"[:300]
        raise AgentError(UNHEALTHY, "reference", problem) from error


def channel_means(values: Any, channels: int) -> Any:
    """Return the mean of each sample and channel, shape (samples, channels).

    Args:
        values: real values, samples first; the channel is the last axis.
        channels: with 1, the mean is over all of a sample.

    Raises:
        AgentError: EQ504, the reference's channels do not match the model's input.
    """
    samples = len(values)
    if channels == 1:
        return values.reshape(samples, -1).mean(axis=1).reshape(samples, 1)
    if values.ndim < 2 or values.shape[-1] != channels:
        raise AgentError(
            UNHEALTHY,
            "reference",
            "its channels do not match the model's input",
            expected=f"{channels} channels",
            got=f"an input of shape {tuple(values.shape[1:])}",
        )
    return values.reshape(samples, -1, channels).mean(axis=1)


def bin_counts(values: Any, edges: Any) -> Any:
    """Return how many values lie in each of the k bins of k+1 edges; values outside count in the end bins."""
    import numpy as np

    last = len(edges) - 2
    return np.bincount(np.clip(np.searchsorted(edges, values, side="right") - 1, 0, last), minlength=last + 1)


def softmax(logits: Any) -> Any:
    """Return the probabilities of logits, shape (samples, classes)."""
    import numpy as np

    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def classify(values: Any, reference: Reference) -> Any:
    """Return (finite, predicted class, confidence) of the first output, one entry for each sample.

    A sample whose output is not finite gets False, -1 and 0.

    Args:
        values: real values of the output, shape (samples, classes).
    """
    import numpy as np

    finite = np.isfinite(values).all(axis=1)
    predicted = np.full(len(values), -1, np.int64)
    confidence = np.zeros(len(values))
    if finite.any():
        scores = softmax(values[finite]) if reference.logits else values[finite]
        predicted[finite] = scores.argmax(axis=1)
        confidence[finite] = scores.max(axis=1)
    return finite, predicted, confidence


class WindowBuilder:
    """Counts the inferences of one window; one thread at a time may use it."""

    def __init__(self, reference: Reference) -> None:
        import numpy as np

        self._reference = reference
        self._started_ns = clock.wall_ns()
        self._began = clock.now()
        self._latency = ddsketch.SketchBuilder()
        self._errors: dict[str, int] = {}
        self._inferences = 0
        self._inputs = [[np.zeros(len(edges) - 1, np.int64) for edges in each] for each in reference.edges]
        self._predicted = np.zeros(max(1, reference.classes), np.int64)
        self._confidence = np.zeros(len(reference.confidence) - 1, np.int64)

    def add_error(self, kind: str, count: int, *, counted: bool = False) -> None:
        """Count inferences without a usable answer.

        Args:
            counted: their latency was counted already, and they with it.
        """
        self._errors[kind] = self._errors.get(kind, 0) + count
        self._inferences += 0 if counted else count

    def add_latency(self, latency_ns: int) -> None:
        """Count one inference that the runtime finished."""
        self._latency.add(latency_ns)
        self._inferences += 1

    def add_latencies(self, latencies_ns: Any) -> None:
        """Count several inferences at once, each as `add_latency` does.

        Args:
            latencies_ns: integers, shape (samples,).
        """
        import numpy as np

        if not len(latencies_ns):
            return
        values = np.maximum(latencies_ns, 1)
        buckets = np.ceil(np.log(values) / ddsketch.LOG_GAMMA).astype(np.int64)
        indices, counts = np.unique(buckets, return_counts=True)
        by_bucket = dict(zip(indices.tolist(), counts.tolist()))
        self._latency.add_counts(by_bucket, int(values.sum()), int(values.min()), int(values.max()))
        self._inferences += len(values)

    def add_input(self, number: int, values: Any) -> None:
        """Count the real values of input `number`, samples first."""
        if number < len(self._inputs) and len(values):
            self.add_means(number, channel_means(values, len(self._inputs[number])))

    def add_means(self, number: int, means: Any) -> None:
        """Count channel means of input `number`, shape (samples, channels)."""
        for channel, counts in enumerate(self._inputs[number]):
            counts += bin_counts(means[:, channel], self._reference.edges[number][channel])

    def add_outputs(self, predicted: Any, confidence: Any) -> None:
        """Count predicted classes and confidences, both of shape (samples,)."""
        import numpy as np

        if not len(predicted):
            return
        last = len(self._predicted) - 1
        self._predicted += np.bincount(np.minimum(predicted, last), minlength=last + 1)
        self._confidence += bin_counts(confidence, self._reference.confidence)

    @property
    def inferences(self) -> int:
        """Inferences counted so far, failed ones included."""
        return self._inferences

    def counted(self, errors: Mapping[str, int], calls: int) -> Window:
        """Return a window of counts alone: no latency, no histogram, no sensor.

        Args:
            calls: inferences that were answered.
        """
        return Window(
            started_ns=self._started_ns,
            ended_ns=max(self._started_ns, clock.wall_ns()),
            inferences=sum(errors.values()),
            errors=dict(errors),
            latency=ddsketch.SketchBuilder().build(),
            inputs=tuple(
                InputCounts(name=name, channels=tuple((0,) * len(counts) for counts in channels))
                for name, channels in zip(self._reference.names, self._inputs)
            ),
            output=OutputCounts((0,) * len(self._predicted), (0,) * len(self._confidence)),
            unrecorded=calls,
            interrupted=1,
            clock_synced=clock.synced(),
            uptime_ns=clock.now().since_boot_ns,
        )

    def build(self) -> Window:
        """Return the window as it stands, with the device's sensors read now; the outbox numbers it."""
        platform = platforms.platform_of()
        memory, temperature = platform.peak_memory_bytes().value, platform.temperature_c().value
        now, ended_ns = clock.now(), clock.wall_ns()
        # Not from the wall clock, which may be set while the window is open.
        duration_ns = clock.elapsed_ns(self._began, now) or 0
        stepped = abs(ended_ns - self._started_ns - duration_ns) > _CLOCK_STEP_NS
        ended_ns = max(ended_ns, duration_ns)
        return Window(
            started_ns=ended_ns - duration_ns,
            ended_ns=ended_ns,
            clock_synced=False if stepped else clock.synced(),
            uptime_ns=now.since_boot_ns,
            inferences=self._inferences,
            errors=dict(self._errors),
            latency=self._latency.build(),
            inputs=tuple(
                InputCounts(name=name, channels=tuple(tuple(counts.tolist()) for counts in channels))
                for name, channels in zip(self._reference.names, self._inputs)
            ),
            output=OutputCounts(
                predicted=tuple(self._predicted.tolist()), confidence=tuple(self._confidence.tolist())
            ),
            memory_peak_bytes=memory if isinstance(memory, int) else None,
            temperature_c=temperature if isinstance(temperature, float) else None,
        )
