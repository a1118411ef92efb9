"""The shadow: a second model that sees a sampled fraction of the inputs, off the caller's path.

Its answers go nowhere; how often it agrees, and how far the two outputs are apart, goes into the windows:
`shadow: {NAME: {samples, agree, signal, noise, dropped, failed}}`, where signal and noise are sums of squares
(of the shadow's output, and of the difference), so that 10 log10(signal / noise) is the SQNR in dB.
"""

from __future__ import annotations

import math
import os
import random
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Callable, Deque

from edgeq_agent.errors import AgentError
from edgeq_agent.inference import model
from edgeq_agent.releases import release_store
from edgeq_agent.sdk.call_metrics import CallMetrics
from edgeq_agent.sdk.errors import ShadowUnusable
from edgeq_agent.sdk.release_names import release_named
from edgeq_agent.storage.home import Home

if TYPE_CHECKING:
    from edgeq_agent.sdk.engine import Engine

_QUEUE = 16
_QUEUE_BYTES = 16 << 20
_IDLE_S = 0.5


class Sampler:
    """Takes its share of one engine's calls to the shadow; never blocks."""

    def __init__(self, shadows: Shadows, loaded: model.Model, name: str, metrics: CallMetrics) -> None:
        self._shadows = shadows
        self.loaded = loaded
        self.name = name
        self.metrics = metrics

    def draw(self) -> int:
        """Return after how many calls the next one is sampled: geometric, so that no rhythm of the inputs
        is caught in step."""
        fraction = self._shadows.fraction
        if fraction >= 1.0:
            return 1
        return 1 + int(math.log(1.0 - random.random()) / math.log(1.0 - fraction))  # noqa: S311 - a sample

    def offer(self, inputs: list[Any], output: Any) -> None:
        """Hand over one call's real values, or count that it had to be dropped."""
        if not self._shadows.take(self, inputs, output):
            self.metrics.add_shadow(self.name, dropped=1)


class Shadows:
    """Runs the shadows of all engines in one thread, over a bounded queue.

    Args:
        which: a release of the model (its id or the beginning of it), `previous`, or the name of a model file
            in the release that is shadowed.
        fraction: of the calls, above 0 and at most 1.
    """

    def __init__(
        self, place: Home, name: str, which: str, fraction: float, report: Callable[[str, AgentError], None]
    ) -> None:
        if not 0 < fraction <= 1:
            raise ShadowUnusable("shadow_fraction", expected="above 0 and at most 1", got=str(fraction))
        self._home = place
        self._name = name
        self._which = which
        self.fraction = fraction
        self._report = report
        self._queue: Deque[tuple[Sampler, list[Any], Any]] = deque()
        self._ready = threading.Event()
        self._ended = False
        self._busy = False
        self._thread = threading.Thread(target=self._work, name="edgeq-shadow-" + name, daemon=True)
        self._thread.start()

    def attach(self, engine: Engine) -> Sampler | None:
        """Return what samples an engine's calls; None, and a report, when its shadow cannot be used."""
        try:
            path, label = self._find(engine)
            loaded = model.load(engine.module, path, 1)
            _check(engine, loaded)
        except AgentError as error:
            # A shadow only watches: without it the release serves all the same.
            self._report(engine.release, error)
            return None
        return Sampler(self, loaded, label, engine.metrics)

    def _find(self, engine: Engine) -> tuple[str, str]:
        which = self._which
        if which.endswith(".tflite"):
            if which not in engine.manifest.files:  # also keeps the path inside the release
                known = ", ".join(sorted(engine.manifest.files))
                raise ShadowUnusable("shadow " + which, expected="a file of the release: " + known)
            return os.path.join(self._home.release(engine.release), which), which
        release = release_named(self._home, self._name, which, ShadowUnusable)
        wanted = release_store.read(self._home, release)
        return os.path.join(self._home.release(release), wanted.model_file), release[:12]

    def take(self, sampler: Sampler, inputs: list[Any], output: Any) -> bool:
        """Queue one call unless the queue is full; tell whether it was."""
        size_bytes = sum(array.nbytes for array in inputs) + output.nbytes
        if len(self._queue) >= max(1, min(_QUEUE, _QUEUE_BYTES // max(1, size_bytes))):
            return False
        self._queue.append((sampler, inputs, output))
        self._ready.set()
        return True

    def drained(self) -> bool:
        """Tell whether all that was taken has been answered."""
        return not self._queue and not self._busy

    def close(self, timeout_s: float) -> None:
        """Answer what is queued, then end the thread."""
        self._ended = True
        self._ready.set()
        self._thread.join(timeout_s)

    def _work(self) -> None:
        while True:
            self._ready.wait(_IDLE_S)
            self._ready.clear()
            while self._queue:
                self._busy = True  # before the pop: `drained` must not see neither
                sampler, inputs, output = self._queue.popleft()
                self._compare(sampler, inputs, output)
                # Neither a model nor its samples are kept alive by a thread that waits.
                del sampler, inputs, output
            self._busy = False
            if self._ended:
                return

    def _compare(self, sampler: Sampler, inputs: list[Any], output: Any) -> None:
        import numpy as np

        loaded = sampler.loaded
        try:
            feeds = [model.to_input(array, tensor) for array, tensor in zip(inputs, loaded.inputs)]
            model.invoke(loaded, feeds, 0)
        except AgentError as error:
            sampler.metrics.add_shadow(sampler.name, failed=1)
            self._report(sampler.metrics.release, error)
            return
        wanted = model.to_real(model.output(loaded), loaded.outputs[0]).reshape(-1)
        got = np.asarray(output, np.float64).reshape(-1)
        if not (np.isfinite(wanted).all() and np.isfinite(got).all()):
            sampler.metrics.add_shadow(sampler.name, failed=1)
            return
        sampler.metrics.add_shadow(
            sampler.name,
            samples=1,
            agree=int(wanted.argmax() == got.argmax()),
            signal=float(np.square(wanted).sum()),
            noise=float(np.square(wanted - got).sum()),
        )


def _check(engine: Engine, loaded: model.Model) -> None:
    mine = [list(info.shape[1:]) for info in engine.inputs]
    theirs = [tensor.shape for tensor in loaded.inputs]
    if mine != theirs or engine.classes != loaded.classes:
        raise ShadowUnusable(
            "shadow",
            "takes or gives something else than the release",
            expected=f"inputs {mine}, {engine.classes} outputs",
            got=f"inputs {theirs}, {loaded.classes} outputs",
        )
