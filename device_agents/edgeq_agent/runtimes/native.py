"""TFLite's `benchmark_model` as a runtime: it loads and runs a model and tells times; it gives no outputs.

What it takes the place of is a Python runtime where none fits. A release that is served over it was seen to
load and to run here, on inputs of the program's own; what it answers was not looked at.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from contextlib import suppress

from edgeq_agent.blobs import blob_store
from edgeq_agent.errors import BLOB_MISSING, DEADLINE, NATIVE_CANNOT, UNHEALTHY, UNSUPPORTED, AgentError
from edgeq_agent.inference.jobs import self_test
from edgeq_agent.platforms import registry as platforms
from edgeq_agent.platforms import sensors
from edgeq_agent.runtimes import native_output
from edgeq_agent.runtimes.native_output import Figures
from edgeq_agent.storage import disk, files, scratch
from edgeq_agent.storage.home import Home
from edgeq_agent.wire import Json

# Stands where a Python runtime's entry names its module.
MODULE = "benchmark_model"
RAN = "ran"
GOLDEN = "golden"
_GATE_RUNS = 50
_SHARE_OF_DEADLINE = 0.8


def is_native(entry: Json | None) -> bool:
    """Tell whether a runtime is the native program."""
    return entry is not None and entry.get("module") == MODULE


def refuse_answers(entry: Json, model: str) -> None:
    """Refuse what needs a model's outputs.

    Raises:
        AgentError: EQ559, the runtime is the native program.
    """
    if is_native(entry):
        raise AgentError(
            NATIVE_CANNOT,
            model,
            "its runtime on this device is benchmark_model, which measures and gives no answers",
            hint="`edgeq bench` works; the application runs the model with its own runtime",
        )


def refuse_comparison(entry: Json | None, model: str) -> None:
    """Refuse an experiment: over the native program there is no output and no telemetry to compare.

    Raises:
        AgentError: EQ559, the runtime is the native program.
    """
    if is_native(entry):
        raise AgentError(
            NATIVE_CANNOT,
            model,
            "its runtime on this device is benchmark_model, which gives no answers to compare",
            hint="leave this device out of the experiment",
        )


def build(home: Home, sha256: str, folder: str, timeout_s: float) -> Json:
    """Put the program into `folder`, and prove it on a tiny model.

    Raises:
        AgentError: EQ501 no space, EQ503 it does not start or run here, EQ509 it is not on the device, EQ561
            it is another program.
    """
    if not blob_store.intact(home, sha256):
        files.remove(home.blob(sha256))
        raise AgentError(BLOB_MISSING, MODULE, "not on the device", expected=sha256, hint="send it first")
    blob_store.check_space(home, MODULE, os.path.getsize(home.blob(sha256)), 2)
    program = os.path.join(folder, MODULE)
    disk.copy(home.blob(sha256), program)
    disk.chmod(program, 0o700)
    return prove(home, program, sha256[:12], timeout_s)


def prove(home: Home, program: str, version: str, timeout_s: float) -> Json:
    """Return {module, version, python, numpy} of a program that runs a tiny model here."""
    path = scratch.path(home, "tiny.tflite")
    try:
        with disk.create(path) as stream:
            stream.write(self_test.TINY_MODEL)
        run(program, path, timeout_s, runs=1, min_seconds=0.0, crash_code=UNSUPPORTED)
    finally:
        scratch.remove(path)
    return {"module": MODULE, "version": version, "python": "", "numpy": ""}


def gate(program: str, model_path: str, timeout_s: float) -> Json:
    """Return what the health check says of a model: it loaded, and ran so many times on made-up inputs.

    Raises:
        AgentError: EQ504 it does not load or run, EQ511 it hangs, EQ561 as `native_output.parse`.
    """
    figures = run(program, model_path, timeout_s, runs=_GATE_RUNS, min_seconds=0.0)
    return {
        "proof": RAN,
        "golden": {"samples": 0, "checked": False},
        "runs": figures.runs,
        # Where it prints no percentile, the slowest run is an upper bound of it.
        "latency_p95_ns": figures.max_ns if figures.p95_ns is None else figures.p95_ns,
        "latency_of": "max" if figures.p95_ns is None else "p95",
        "memory_peak_bytes": peak_bytes(),
        "kernels": figures.kernels,
    }


def bench(program: str, version: str, job: Json, timeout_s: float) -> Json:
    """Return the measured part of an edgeq.native-bench/1 document."""
    platform = platforms.platform_of()
    before = sensors.environment(platform)
    figures = run(
        program,
        str(job["model_path"]),
        timeout_s,
        runs=int(job["runs"]),
        min_seconds=float(job["min_seconds"]),
        warmup=int(job["warmup"]),
        threads=int(job["threads"]),
    )
    short = figures.runs < int(job["runs"])
    return {
        "source": MODULE,
        "inputs": "made up by the program",
        "program": version,
        "threads": job["threads"],
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
        "warnings": ["{} of {} runs until the deadline".format(figures.runs, job["runs"])] if short else [],
    }


def peak_bytes() -> int | None:
    """Return the peak memory of the largest program that was waited for: the native one, by far."""
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
) -> Figures:
    """Run the program on a model.

    Raises:
        AgentError: EQ503 it does not start, `crash_code` it fails, EQ511 it passes the deadline, EQ561 it
            prints something else.
    """
    longest_s = timeout_s * _SHARE_OF_DEADLINE / 2  # for the warm-up and for the measurement, each
    argv = [
        program,
        "--graph=" + model_path,
        f"--num_runs={runs}",
        f"--min_secs={min(min_seconds, longest_s):g}",
        f"--max_secs={longest_s:g}",
        f"--warmup_runs={max(1, warmup)}",
        "--warmup_min_secs=0",
        f"--num_threads={threads}",
    ]
    status, text = _run(argv, timeout_s)
    if status != 0:
        last = text.strip().splitlines()[-1:]
        how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        raise AgentError(crash_code, MODULE, f"fails: {how}" + ("" if not last else ": " + last[0][:200]))
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
        said, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        raise AgentError(
            DEADLINE,
            MODULE,
            "did not end and was killed",
            expected=f"an end within {timeout_s:g} s",
            hint="allow more time, or roll back",
        ) from error
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    return process.returncode, said.decode("utf-8", "replace")
