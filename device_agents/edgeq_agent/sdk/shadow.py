"""The shadow: a second model that runs a sampled fraction of the inputs, off the caller's path.

Its outputs are only compared. The telemetry windows count how often it agrees and how far the outputs differ:
`shadow: {NAME: {samples, agree, signal, noise, dropped, failed}}`, where signal and noise are sums of squares
(of the shadow's output, and of the difference), so that 10 log10(signal / noise) is the SQNR in dB.
"""

from __future__ import annotations

import math
import os
import random
import threading
from collections import deque
from typing import Any, Callable, Deque, NamedTuple

from edgeq_agent.errors import AgentError
from edgeq_agent.inference import model
from edgeq_agent.inference.job import ReleaseFiles
from edgeq_agent.releases import release_store
from edgeq_agent.releases.manifest import Manifest
from edgeq_agent.sdk.call_metrics import CallMetrics
from edgeq_agent.sdk.errors import ShadowUnusable
from edgeq_agent.sdk.release_names import release_named
from edgeq_agent.sdk.tensors import TensorInfo
from edgeq_agent.storage.home import Home

_QUEUE = 16
_QUEUE_BYTES = 16 << 20
_IDLE_S = 0.5


class ShadowTarget(NamedTuple):
    """The loaded release whose calls are sampled.

    Attributes:
        module: the runtime module that it runs with; the shadow runs with the same.
        classes: how many values its first output has.
    """

    manifest: Manifest
    module: str
    inputs: list[TensorInfo]
    classes: int
    metrics: CallMetrics


class Sampler:
    """Passes a sample of one engine's calls to the shadow; never blocks."""

    def __init__(self, shadows: Shadows, loaded: model.Model, name: str, metrics: CallMetrics) -> None:
        self._shadows = shadows
        self.loaded = loaded
        self.name = name
        self.metrics = metrics

    def draw(self) -> int:
        """Return after how many calls the next one is sampled.

        The number is geometrically distributed, so that sampling cannot fall into step with periodic inputs.
        """
        fraction = self._shadows.fraction
        if fraction >= 1.0:
            return 1
        return 1 + int(math.log(1.0 - random.random()) / math.log(1.0 - fraction))  # noqa: S311 - a sample

    def offer(self, inputs: list[Any], output: Any) -> None:
        """Pass on the real values of one call; count it as dropped when the queue is full."""
        if not self._shadows.take(self, inputs, output):
            self.metrics.add_shadow(self.name, dropped=1)


class Shadows:
    """Runs the shadows of all engines in one thread, over a bounded queue.

    Args:
        which: a release of the model (its id or the beginning of it), `previous`, or the name of a model file
            in the release that is shadowed.
        fraction: of the calls, above 0 and at most 1.
        report: called with the release and the error when a shadow fails.
    """

    def __init__(
        self, home: Home, name: str, which: str, fraction: float, report: Callable[[str, AgentError], None]
    ) -> None:
        self._home = home
        self._name = name
        self._which = which
        self.fraction = fraction
        self._report = report
        self._queue: Deque[tuple[Sampler, list[Any], Any]] = deque()
        self._ready = threading.Event()
        self._closing = False
        self._busy = False
        self._thread = threading.Thread(target=self._work, name="edgeq-shadow-" + name, daemon=True)
        self._thread.start()

    def attach(self, target: ShadowTarget) -> Sampler | None:
        """Return the sampler of a release's calls; None, and a report, when the shadow cannot be used."""
        try:
            path, cpu_path, label = self._find(target)
            loaded = model.load(target.module, path, 1, cpu_path)
            _check(target, loaded)
        except AgentError as error:
            # A shadow only observes: the release serves without it.
            self._report(target.manifest.release, error)
            return None
        return Sampler(self, loaded, label, target.metrics)

    def _find(self, target: ShadowTarget) -> tuple[str, str | None, str]:
        """Return the path of the shadow's model, that of its model for the CPU, and the shadow's name."""
        which = self._which
        if which.endswith(".tflite"):
            files = target.manifest.files
            if which not in files:  # this check also keeps the path inside the release
                known = ", ".join(sorted(files))
                raise ShadowUnusable("shadow " + which, expected="a file of the release: " + known)
            return os.path.join(self._home.release(target.manifest.release), which), None, which
        release = release_named(self._home, self._name, which, ShadowUnusable)
        manifest = release_store.read(self._home, release)
        shadow = ReleaseFiles.of(self._home, manifest)
        return shadow.model_path, shadow.cpu_path, release[:12]

    def take(self, sampler: Sampler, inputs: list[Any], output: Any) -> bool:
        """Queue one call; return False when the queue is full."""
        size_bytes = sum(array.nbytes for array in inputs) + output.nbytes
        if len(self._queue) >= max(1, min(_QUEUE, _QUEUE_BYTES // max(1, size_bytes))):
            return False
        self._queue.append((sampler, inputs, output))
        self._ready.set()
        return True

    def drained(self) -> bool:
        """Return whether all queued calls have been compared."""
        return not self._queue and not self._busy

    def close(self, timeout_s: float) -> None:
        """Compare what is queued, then end the thread."""
        self._closing = True
        self._ready.set()
        self._thread.join(timeout_s)

    def _work(self) -> None:
        while True:
            self._ready.wait(_IDLE_S)
            self._ready.clear()
            while self._queue:
                self._busy = True  # before the pop: `drained` must see one or the other
                sampler, inputs, output = self._queue.popleft()
                self._compare(sampler, inputs, output)
                # A waiting thread must not keep a model or its samples in memory.
                del sampler, inputs, output
            self._busy = False
            if self._closing:
                return

    def _compare(self, sampler: Sampler, inputs: list[Any], output: Any) -> None:
        import numpy as np

        loaded = sampler.loaded
        try:
            feeds = [model.to_input(array, tensor) for array, tensor in zip(inputs, loaded.inputs)]
            # Calls are sampled one by one, so that the shadow never has the state of the call before.
            loaded = sampler.loaded = model.fresh(loaded)
            model.invoke(loaded, feeds, 0)
        except AgentError as error:
            sampler.metrics.add_shadow(sampler.name, failed=1)
            self._report(sampler.metrics.release, error)
            return
        expected = model.to_real(model.output(loaded), loaded.outputs[0]).reshape(-1)
        actual = np.asarray(output, np.float64).reshape(-1)
        if not (np.isfinite(expected).all() and np.isfinite(actual).all()):
            sampler.metrics.add_shadow(sampler.name, failed=1)
            return
        sampler.metrics.add_shadow(
            sampler.name,
            samples=1,
            agree=int(expected.argmax() == actual.argmax()),
            signal=float(np.square(expected).sum()),
            noise=float(np.square(expected - actual).sum()),
        )


def _check(target: ShadowTarget, loaded: model.Model) -> None:
    own = [list(info.shape[1:]) for info in target.inputs]
    others = [tensor.shape for tensor in loaded.inputs]
    if own != others or target.classes != loaded.classes:
        raise ShadowUnusable(
            "shadow",
            "its inputs or outputs differ from the release's",
            expected=f"inputs {own}, {target.classes} outputs",
            got=f"inputs {others}, {loaded.classes} outputs",
        )
