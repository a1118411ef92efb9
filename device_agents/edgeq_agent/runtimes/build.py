"""Build a runtime from what the host sent, run its self-test, and install it."""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

from edgeq_agent.calls.call import Progress
from edgeq_agent.errors import NATIVE_UNREADABLE, RUNTIME_REFUSED, UNSUPPORTED, AgentError
from edgeq_agent.inference.job import SelfTest
from edgeq_agent.runtimes import native, python, registry, venv
from edgeq_agent.runtimes.registry import RuntimeParts
from edgeq_agent.runtimes.venv import WheelBlob
from edgeq_agent.storage import disk, scratch
from edgeq_agent.storage.home import Home


class RuntimeSpec(NamedTuple):
    """What a runtime is to be built from.

    Attributes:
        digest: names the runtime; computed by the host.
        wheels: of a virtual environment; with none, the agent's own Python is used.
        modules: the runtime modules to try, in this order.
        program: SHA-256 of the native program; None for a Python runtime.
    """

    digest: str
    wheels: list[WheelBlob]
    modules: tuple[str, ...]
    program: str | None


def build(home: Home, spec: RuntimeSpec, timeout_s: float, progress: Progress) -> SelfTest:
    """Build and install a runtime (lock held).

    Raises:
        AgentError: EQ501 no space; EQ503 it cannot be built here, or the device's own Python cannot infer;
            EQ509 a blob is not on the device; EQ511 at the deadline; EQ556 the wheels do not start here;
            EQ561 the program is not benchmark_model.
    """
    folder = scratch.path(home, "runtime-" + spec.digest)
    scratch.sweep(home)
    try:
        disk.mkdir(folder)
        make = _make_python if spec.program is None else _make_native
        self_test, parts = make(home, spec, folder, timeout_s, progress)
        progress("proved", module=self_test.module, version=self_test.version)
        registry.install(home, spec.digest, folder, self_test, parts)
        return self_test
    finally:
        scratch.remove(folder)


def _make_native(
    home: Home, spec: RuntimeSpec, folder: str, timeout_s: float, progress: Progress
) -> tuple[SelfTest, RuntimeParts]:
    program = str(spec.program)
    try:
        self_test = native.build(home, program, folder, timeout_s)
    except AgentError as error:
        if error.code in (UNSUPPORTED, NATIVE_UNREADABLE):
            registry.refuse(home, spec.digest, error.problem)
        raise
    return self_test, RuntimeParts(native.MODULE, [], [program], [native.MODULE])


def _make_python(
    home: Home, spec: RuntimeSpec, folder: str, timeout_s: float, progress: Progress
) -> tuple[SelfTest, RuntimeParts]:
    names = [wheel.name for wheel in spec.wheels]
    blobs = [wheel.sha256 for wheel in spec.wheels]
    if not spec.wheels:
        self_test = python.self_test(sys.executable, spec.modules, timeout_s)
        return self_test, RuntimeParts(registry.AGENT_PYTHON, names, blobs, [])
    venv.check_wheels(home, spec.wheels)
    venv.make(os.path.join(folder, "venv"), spec.wheels, timeout_s)
    progress("venv")
    venv.unpack(home, spec.wheels, os.path.join(folder, "venv"))
    progress("wheels", count=len(spec.wheels))
    interpreter = os.path.join("venv", "bin", "python")
    self_test = _test_wheels(home, spec, os.path.join(folder, interpreter), timeout_s)
    return self_test, RuntimeParts(interpreter, names, blobs, ["venv"])


def _test_wheels(home: Home, spec: RuntimeSpec, interpreter: str, timeout_s: float) -> SelfTest:
    try:
        return python.self_test(interpreter, spec.modules, timeout_s)
    except AgentError as error:
        if error.code != UNSUPPORTED:
            raise
        # Remembered, so that the host sends other wheels next time.
        registry.refuse(home, spec.digest, error.problem)
        raise AgentError(
            RUNTIME_REFUSED,
            "runtime " + spec.digest[:12],
            "its wheels match the device's tags but do not start here: " + error.problem,
            hint="`edgeq deploy BUNDLE --to DEVICE` tries the next ones; "
            "`edgeq prune --on DEVICE` lets these be tried again",
        ) from error
