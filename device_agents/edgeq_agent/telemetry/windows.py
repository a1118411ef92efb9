"""Telemetry windows: counts per reference bin, never a raw input (child process only)."""

from __future__ import annotations

import json
import time
from typing import Any

from edgeq_agent.errors import UNHEALTHY, AgentError
from edgeq_agent.platforms import registry as platforms
from edgeq_agent.telemetry import ddsketch
from edgeq_agent.wire import REFERENCE_SCHEMA, Json

_CONFIDENCE_BINS = 20


class Reference:
    """The bins of a release's reference.json, or, without one, confidence in equal bins and no inputs.

    Raises:
        KeyError, TypeError, ValueError: it is no reference.
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


def load(path: str | None, classes: int) -> Reference:
    """Return the reference in a file, or equal bins where a release has none.

    Args:
        classes: how many values the model's first output has.

    Raises:
        AgentError: EQ504, the file is no reference.
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
        raise AgentError(UNHEALTHY, "reference", f"no {REFERENCE_SCHEMA}: {error!r}"[:300]) from error


def channel_means(values: Any, channels: int) -> Any:
    """Return the mean of each sample and channel, shape (samples, channels); samples come first.

    The channel is the last axis; with one channel all of a sample is pooled.
    """
    samples = len(values)
    if channels == 1:
        return values.reshape(samples, -1).mean(axis=1).reshape(samples, 1)
    if values.ndim < 2 or values.shape[-1] != channels:
        raise AgentError(
            UNHEALTHY,
            "reference",
            "its channels are not those of the model's input",
            expected=f"{channels} channels",
            got=f"an input of shape {tuple(values.shape[1:])}",
        )
    return values.reshape(samples, -1, channels).mean(axis=1)


def bin_counts(values: Any, edges: Any) -> Any:
    """Return how many values lie in each of the k bins of k+1 edges; those outside count in the end bins."""
    import numpy as np

    last = len(edges) - 2
    return np.bincount(np.clip(np.searchsorted(edges, values, side="right") - 1, 0, last), minlength=last + 1)


def softmax(logits: Any) -> Any:
    """Return the probabilities of logits, shape (samples, classes)."""
    import numpy as np

    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def judge(values: Any, reference: Reference) -> Any:
    """Return (good, predicted, confidence) of the first output's real values, shape (samples, classes).

    Where they are not finite: False, -1 and 0.
    """
    import numpy as np

    good = np.isfinite(values).all(axis=1)
    predicted = np.full(len(values), -1, np.int64)
    confidence = np.zeros(len(values))
    if good.any():
        scores = softmax(values[good]) if reference.logits else values[good]
        predicted[good] = scores.argmax(axis=1)
        confidence[good] = scores.max(axis=1)
    return good, predicted, confidence


class Window:
    """Counts one window's inferences."""

    def __init__(self, reference: Reference) -> None:
        import numpy as np

        self._reference = reference
        self._started_ns = time.time_ns()
        self._latency = ddsketch.Sketch()
        self._errors: dict[str, int] = {}
        self._inferences = 0
        self._inputs = [[np.zeros(len(edges) - 1, np.int64) for edges in each] for each in reference.edges]
        self._predicted = np.zeros(max(1, reference.classes), np.int64)
        self._confidence = np.zeros(len(reference.confidence) - 1, np.int64)

    def error(self, kind: str, count: int, *, counted: bool = False) -> None:
        """Count inferences that gave no usable answer; `counted` when their latency was counted already."""
        self._errors[kind] = self._errors.get(kind, 0) + count
        self._inferences += 0 if counted else count

    def latency(self, latency_ns: int) -> None:
        """Count one inference that the runtime finished."""
        self._latency.add(latency_ns)
        self._inferences += 1

    def latencies(self, latencies_ns: Any) -> None:
        """Count several inferences that the runtime finished: as `latency` does each, in one go."""
        import numpy as np

        if not len(latencies_ns):
            return
        values = np.maximum(latencies_ns, 1)
        buckets = np.ceil(np.log(values) / ddsketch.LOG_GAMMA).astype(np.int64)
        indices, counts = np.unique(buckets, return_counts=True)
        found = dict(zip(indices.tolist(), counts.tolist()))
        self._latency.add_counts(found, int(values.sum()), int(values.min()), int(values.max()))
        self._inferences += len(values)

    def inputs(self, number: int, values: Any) -> None:
        """Count the real values of input `number` of several samples, samples first."""
        if number < len(self._inputs) and len(values):
            self.means(number, channel_means(values, len(self._inputs[number])))

    def means(self, number: int, means: Any) -> None:
        """Count the channel means of input `number` of several samples, shape (samples, channels)."""
        for channel, counts in enumerate(self._inputs[number]):
            counts += bin_counts(means[:, channel], self._reference.edges[number][channel])

    def outputs(self, predicted: Any, confidence: Any) -> None:
        """Count the predicted classes and the confidences of several samples."""
        import numpy as np

        if not len(predicted):
            return
        last = len(self._predicted) - 1
        self._predicted += np.bincount(np.minimum(predicted, last), minlength=last + 1)
        self._confidence += bin_counts(confidence, self._reference.confidence)

    @property
    def inferences(self) -> int:
        """How many inferences were counted, errors included."""
        return self._inferences

    def body(self) -> Json:
        """Return the window without what only the outbox knows (device, boot, seq, model, release)."""
        names = self._reference.names
        platform = platforms.platform_of()
        return {
            "started_ns": self._started_ns,
            "ended_ns": time.time_ns(),
            "inferences": self._inferences,
            "errors": self._errors,
            "latency": self._latency.body(),
            "memory_peak_bytes": platform.peak_memory_bytes().value,
            "temperature_c": platform.temperature_c().value,
            "inputs": [
                {"name": name, "channels": [counts.tolist() for counts in channels]}
                for name, channels in zip(names, self._inputs)
            ],
            "output": {"predicted": self._predicted.tolist(), "confidence": self._confidence.tolist()},
        }
