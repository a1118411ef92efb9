"""One release in this process: its model, checked with golden inputs, and a bounded pool of interpreters."""

from __future__ import annotations

import importlib.util
import threading
import time
from collections import deque
from typing import Callable, Deque, NamedTuple

from edgeq_agent.activation import candidates
from edgeq_agent.errors import UNHEALTHY, UNSUPPORTED, AgentError, one_line
from edgeq_agent.inference import model, runtime_modules
from edgeq_agent.inference.job import GoldenJob, ReleaseFiles
from edgeq_agent.inference.jobs import golden
from edgeq_agent.releases import release_store
from edgeq_agent.runtimes import registry
from edgeq_agent.sdk.call_metrics import CallMetrics, Side
from edgeq_agent.sdk.errors import ReleaseRefused
from edgeq_agent.sdk.shadow import Sampler, Shadows, ShadowTarget
from edgeq_agent.sdk.slot import HandOver, Slot
from edgeq_agent.sdk.tensors import TensorInfo, info_of
from edgeq_agent.storage.home import Home
from edgeq_agent.telemetry.window_builder import load_reference
from edgeq_agent.wire import WHEEL_RUNTIME_MODULES

_WAIT_S = 0.2


class Options(NamedTuple):
    """How a runtime loads its releases.

    Attributes:
        threads: of each interpreter.
        pool: how many interpreters a release may have.
        telemetry: whether calls are recorded.
        window_inferences, window_s, window_least_s: see `Runtime`.
    """

    threads: int
    pool: int
    telemetry: bool
    window_inferences: int
    window_s: float
    window_least_s: float


class Engine:
    """Answers calls with one release; lives until the last call that began on it has ended.

    Attributes:
        free: the idle slots. `free.pop()` takes one and `give(slot)` returns it, both without a lock.
        stateful: whether the model keeps state from one inference to the next.
        metrics: the counts and telemetry of its calls; outlives the engine.
    """

    def __init__(self, home: Home, name: str, release: str, side: Side, options: Options) -> None:
        manifest = release_store.read(home, release)
        files = ReleaseFiles.of(home, manifest)
        self._files = files
        self.module = usable_module(home, name, release)
        self._options = options
        loaded = self._load()
        golden.check(loaded, GoldenJob(self.module, runtime_modules.version_of(self.module), files))
        self.release = release
        self.arm = side.arm
        self.side = side
        self.manifest = manifest
        self.kernels = loaded.kernels
        self.classes = loaded.classes
        self.stateful = loaded.state.kept
        self.inputs: list[TensorInfo] = [info_of(tensor) for tensor in loaded.inputs]
        self.outputs: list[TensorInfo] = [info_of(tensor) for tensor in loaded.outputs]
        self.metrics = CallMetrics(
            release, side, loaded, load_reference(files.reference_path, loaded.classes),
            options.window_inferences, options.window_s, options.window_least_s,
        )  # fmt: skip
        self.free: Deque[Slot] = deque()
        self.waiting = 0
        self.size = 0
        self._limit = options.pool
        self._returned = threading.Condition()
        self._hand_over: HandOver | None = None
        self._sampler: Sampler | None = None
        self._wake: Callable[[], None] | None = None
        self._first: model.Model | None = loaded
        self._of_sessions: list[Slot] = []
        self._spare: list[Slot] = []
        self._guard = threading.Lock()  # guards the two above

    def _load(self) -> model.Model:
        return model.load(self.module, self._files.model_path, self._options.threads, self._files.cpu_path)

    def start(self, hand_over: HandOver | None, shadows: Shadows | None, wake: Callable[[], None]) -> Engine:
        """Make the engine ready for calls: attach telemetry and shadow, and make the first slot.

        Args:
            wake: called when calls wait although the pool may grow.
        """
        self._hand_over = hand_over
        self._wake = wake
        if shadows is not None:
            target = ShadowTarget(self.manifest, self.module, self.inputs, self.classes, self.metrics)
            self._sampler = shadows.attach(target)
        self.grow()
        return self

    def grow(self) -> bool:
        """Add a slot if calls wait for one and the pool may grow; return whether it did (one thread only)."""
        if self.size >= self._limit or (self.size and not self.waiting):
            return False
        loaded = self._first or self._load()
        self._first = None
        slot = Slot(loaded, self.metrics, self._hand_over, self._sampler)
        self.size += 1
        self.give(slot)
        return True

    def begin_session(self) -> Slot:
        """Return a slot that one session uses alone, with the model's state as after loading.

        Raises:
            AgentError: EQ503, EQ504, EQ545, EQ560: the model cannot be loaded once more, or not be reset.
        """
        with self._guard:
            slot = self._spare.pop() if self._spare else None
        if slot is None:
            loaded = self._load()
            # A shadow sees single calls, not the ones before; it cannot be compared with a state.
            sampler = None if self.stateful else self._sampler
            slot = Slot(loaded, self.metrics, self._hand_over, sampler, keeps_state=True)
        try:
            slot.reset()
        except AgentError:
            self.metrics.retire(slot.tally)
            raise
        with self._guard:
            self._of_sessions.append(slot)
        return slot

    def end_session(self, slot: Slot) -> None:
        """Release the slot of a session; some are kept for later sessions."""
        with slot.lock:
            slot.flush()
        with self._guard:
            self._of_sessions.remove(slot)
            if len(self._spare) < self._options.pool:
                self._spare.append(slot)
                return
        self.metrics.retire(slot.tally)

    def flush(self) -> None:
        """Hand over the rings of idle slots; a busy slot hands over its own when it is full."""
        for _ in range(len(self.free)):
            try:
                slot = self.free.popleft()
            except IndexError:
                break
            slot.flush()
            self.give(slot)
        with self._guard:
            held = list(self._of_sessions)
        for slot in held:
            if slot.lock.acquire(False):
                try:
                    slot.flush()
                finally:
                    slot.lock.release()

    def stop_growing(self) -> None:
        """Keep the present number of slots: another one could not be made."""
        self._limit = self.size

    def give(self, slot: Slot) -> None:
        """Return a slot."""
        self.free.append(slot)
        if self.waiting:
            with self._returned:
                self._returned.notify()

    def wait(self, until_ns: int | None) -> Slot | None:
        """Return a slot once one is free; None, counted as a late call, when none was free in time.

        Args:
            until_ns: of `time.perf_counter_ns`; None waits without a limit.
        """
        with self._returned:
            self.waiting += 1  # before the pop, so that a thread that returns a slot after it notifies us
            if self._wake is not None and self.size < self._limit:
                self._wake()
            try:
                while True:
                    try:
                        return self.free.pop()
                    except IndexError:
                        left_s = _WAIT_S
                        if until_ns is not None:
                            left_s = min(left_s, (until_ns - time.perf_counter_ns()) / 1e9)
                    if left_s <= 0:
                        self.metrics.no_slot()
                        return None
                    self._returned.wait(left_s)
            finally:
                self.waiting -= 1


def load(home: Home, name: str, release: str, side: Side, options: Options) -> Engine:
    """Load a release and check it with its golden inputs, in this process.

    Raises:
        ReleaseRefused: EQ544, it is incomplete, does not load, or gives wrong outputs.
    """
    try:
        manifest = release_store.read(home, release)
        release_store.check_files(home, manifest)
        try:
            return Engine(home, name, release, side, options)
        except AgentError as error:
            if error.code == UNHEALTHY:  # damaged bytes may be why
                release_store.check_blobs(home, manifest)
            raise
    except (AgentError, OSError, ImportError, MemoryError) as error:
        reason = one_line(error) if isinstance(error, AgentError) else f"{type(error).__name__}: {error}"
        raise ReleaseRefused(
            f"{name} {release[:12]}",
            reason,
            hint="`edgeq status` shows what serves; deploy another release",
        ) from error


def usable_module(home: Home, name: str, release: str) -> str:
    """Return a runtime module that imports here; the one that the release was checked with comes first.

    Raises:
        AgentError: EQ503, this Python has none.
    """
    backend = registry.find(home, candidates.runtime_of(home, name, release))
    preferred = [backend.entry.module] if backend else []
    for module in [*preferred, *WHEEL_RUNTIME_MODULES]:
        if importlib.util.find_spec(module) is not None:
            return module
    raise AgentError(
        UNSUPPORTED,
        "this Python",
        "has no TFLite runtime",
        expected=" or ".join(WHEEL_RUNTIME_MODULES),
        hint="run the application with the interpreter that `edgeq-agent runtime` made, or install one",
    )
