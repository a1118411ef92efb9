"""TFLite's `benchmark_model` as a runtime: it loads and runs a model and reports times, but gives no outputs.

It is used where no Python runtime fits the device. A release that is activated over it was seen to load and
to run here on random inputs; its outputs were not compared with the host's.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from contextlib import suppress

from edgeq_agent import wire
from edgeq_agent.blobs import blob_store
from edgeq_agent.errors import (
    BLOB_MISSING,
    DEADLINE,
    EDGETPU_MISSING,
    NATIVE_UNSUPPORTED,
    UNHEALTHY,
    UNSUPPORTED,
    AgentError,
)  # fmt: skip
from edgeq_agent.inference import edgetpu, job
from edgeq_agent.inference.job import (
    BenchOptions,
    HealthReport,
    InferOptions,
    InferResult,
    ReleaseFiles,
    SelfTest,
)
from edgeq_agent.inference.tiny_model import TINY_MODEL
from edgeq_agent.platforms import registry as platforms
from edgeq_agent.platforms import sensors
from edgeq_agent.runtimes import native_output
from edgeq_agent.runtimes.base import OnEvent, RuntimeBackend
from edgeq_agent.runtimes.native_output import NativeFigures
from edgeq_agent.storage import disk, scratch
from edgeq_agent.storage.home import Home
from edgeq_agent.wire import Json

# Stands in `runtime.json` where a Python runtime has the name of its module.
MODULE = "benchmark_model"
_HEALTH_RUNS = 50
_SHARE_OF_DEADLINE = 0.8


class NativeBackend(RuntimeBackend):
    """Runs a model in the native program; it can be measured, but not asked for answers."""

    proof = job.RAN

    @property
    def python(self) -> str | None:
        return None

    def self_test(self, home: Home, timeout_s: float) -> SelfTest:
        return self_test(home, self.entry.interpreter, self.entry.version, timeout_s)

    def check_health(self, files: ReleaseFiles, timeout_s: float) -> HealthReport:
        path = _runnable(files)
        figures = run(self.entry.interpreter, path, timeout_s, runs=_HEALTH_RUNS, min_seconds=0.0)
        return HealthReport(
            proof=self.proof,
            # Where the program prints no percentile, the slowest run is an upper bound of it.
            latency_p95_ns=figures.max_ns if figures.p95_ns is None else figures.p95_ns,
            latency_of="max" if figures.p95_ns is None else "p95",
            memory_peak_bytes=peak_bytes(),
            kernels=figures.kernels,
            runs=figures.runs,
        )

    def bench(self, files: ReleaseFiles, options: BenchOptions, timeout_s: float) -> Json:
        platform = platforms.platform_of()
        before = sensors.environment(platform)
        figures = run(
            self.entry.interpreter,
            _runnable(files),
            timeout_s,
            runs=options.runs,
            min_seconds=options.min_seconds,
            warmup=options.warmup,
            threads=options.threads,
        )
        missing = figures.runs < options.runs
        return {
            "schema": wire.NATIVE_BENCH_SCHEMA,
            "source": MODULE,
            "inputs": "made up by the program",
            "program": self.entry.version,
            "threads": options.threads,
            "runs": figures.runs,
            "init_ns": figures.init_ns,
            "first_inference_ns": figures.first_ns,
            "latency_ns": figures.latency(),
            "memory": {"peak_bytes": peak_bytes(), "source": "getrusage ru_maxrss of the program"},
            "kernels": figures.kernels,
            "environment": {
                "before": before.to_json(),
                "after": sensors.environment(platform).to_json(),
            },
            "warnings": [f"{figures.runs} of {options.runs} runs until the deadline"] if missing else [],
        }

    def infer(
        self,
        files: ReleaseFiles,
        options: InferOptions,
        payload_path: str,
        timeout_s: float,
        on_event: OnEvent,
    ) -> InferResult:
        raise _no_outputs(os.path.basename(files.model_path))

    def require_outputs(self, model: str) -> None:
        raise _no_outputs(model)

    def require_comparison(self, model: str) -> None:
        raise AgentError(
            NATIVE_UNSUPPORTED,
            model,
            "its runtime on this device is benchmark_model, which gives no outputs to compare",
            hint="leave this device out of the experiment",
        )


def _runnable(files: ReleaseFiles) -> str:
    """Return the path of the model that the program can run: it has no delegate for the Edge TPU.

    Raises:
        AgentError: EQ560, the only one was compiled for the Edge TPU.
    """
    if not edgetpu.is_compiled(files.model_path):
        return files.model_path
    if files.cpu_path is not None:
        return files.cpu_path
    raise AgentError(
        EDGETPU_MISSING,
        "model",
        "it was compiled for the Edge TPU, which its runtime on this device, benchmark_model, cannot use",
        hint="deploy the model that was not compiled, or a bundle made with `--with-cpu`",
    )


def _no_outputs(model: str) -> AgentError:
    return AgentError(
        NATIVE_UNSUPPORTED,
        model,
        "its runtime on this device is benchmark_model, which measures and gives no outputs",
        hint="`edgeq bench MODEL --on DEVICE` works; the application runs the model with its own runtime",
    )


def build(home: Home, sha256: str, folder: str, timeout_s: float) -> SelfTest:
    """Copy the program from its blob into `folder`, and run its self-test.

    Raises:
        AgentError: EQ501 no space, EQ503 it does not start or run here, EQ509 its blob is not on the device,
            EQ561 it is not benchmark_model.
    """
    if not blob_store.is_intact(home, sha256):
        scratch.remove(home.blob(sha256))
        raise AgentError(BLOB_MISSING, MODULE, "not on the device", expected=sha256, hint="send it first")
    blob_store.check_space(home, MODULE, os.path.getsize(home.blob(sha256)), 2)
    program = os.path.join(folder, MODULE)
    disk.copy(home.blob(sha256), program)
    disk.chmod(program, 0o700)
    return self_test(home, program, sha256[:12], timeout_s)


def self_test(home: Home, program: str, version: str, timeout_s: float) -> SelfTest:
    """Let the program run a tiny model.

    Raises:
        AgentError: EQ503 it does not start or run, EQ511 at the deadline, EQ561 as `native_output.parse`.
    """
    path = scratch.path(home, "tiny.tflite")
    try:
        with disk.create(path) as stream:
            stream.write(TINY_MODEL)
        run(program, path, timeout_s, runs=1, min_seconds=0.0, crash_code=UNSUPPORTED)
    finally:
        scratch.remove(path)
    return SelfTest(module=MODULE, version=version)


def peak_bytes() -> int | None:
    """Return the peak memory of the largest child process so far: of the native program, by far."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 or None


def run(
    program: str,
    model_path: str,
    timeout_s: float,
    *,
    runs: int,
    min_seconds: float,
    warmup: int = 1,
    threads: int = 1,
    crash_code: str = UNHEALTHY,
) -> NativeFigures:
    """Run the program on a model.

    Raises:
        AgentError: EQ503 it does not start, `crash_code` it fails, EQ511 at the deadline, EQ561 its output
            is not benchmark_model's.
    """
    max_seconds = timeout_s * _SHARE_OF_DEADLINE / 2  # for the warm-up and for the measurement, each
    argv = [
        program,
        "--graph=" + model_path,
        f"--num_runs={runs}",
        f"--min_secs={min(min_seconds, max_seconds):g}",
        f"--max_secs={max_seconds:g}",
        f"--warmup_runs={max(1, warmup)}",
        "--warmup_min_secs=0",
        f"--num_threads={threads}",
    ]
    status, text = _run(argv, timeout_s)
    if status != 0:
        last = text.strip().splitlines()[-1:]
        how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        raise AgentError(crash_code, MODULE, f"failed: {how}" + ("" if not last else ": " + last[0][:200]))
    return native_output.parse(text)


def _run(argv: list[str], timeout_s: float) -> tuple[int, str]:
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise AgentError(UNSUPPORTED, MODULE, f"does not start here: {error.strerror}") from error
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        raise AgentError(
            DEADLINE,
            MODULE,
            "did not end in time and was killed",
            expected=f"an end within {timeout_s:g} s",
            hint="allow more time, or roll back",
        ) from error
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    return process.returncode, output.decode("utf-8", "replace")
