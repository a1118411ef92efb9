"""Start the worker process, pass its progress on, enforce the deadline, and explain a crash."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq_converters.errors import ConverterError
from edgeq_converters.progress import Progress
from edgeq_converters.worker.protocol import Job, Result, from_json, job_to_json

_NOISE = re.compile(r"^(WARNING|INFO|[WI]\d{4} |\d{4}-\d\d-\d\d .*: [WI] |\s|To enable the following)")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ending:
    """How a worker's output ended; with neither a result nor an error, the worker crashed.

    Attributes:
        step: the last step that it began; empty before the first.
        result: in JSON types, as the worker wrote it.
    """

    step: str
    result: Mapping[str, Any] | None
    error: ConverterError | None


def run_worker(
    job: Job[Result],
    *,
    workdir: Path,
    subject: str,
    deadline_s: float,
    on_progress: Progress | None = None,
) -> Result:
    """Run one job in a child process and return its result.

    Args:
        workdir: an empty folder for the job, the log and the libraries' files.
        subject: the file that error messages name.
        deadline_s: the worker is killed after this time.
        on_progress: called with (step, done, total).

    Raises:
        ConverterError: the worker's own error; EQ310 where it crashed or missed the deadline, EQ303 where
            that happened before its first step, while it read the model.
    """
    (workdir / "job.json").write_text(json.dumps(job_to_json(job)), encoding="utf-8")
    log = workdir / "worker.log"
    with log.open("wb") as stderr:
        # -P keeps the current folder off sys.path: a user's `keras.py` there must not be imported.
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "edgeq_converters.worker", str(workdir / "job.json")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=_environment(workdir),
            start_new_session=True,
            text=True,
        )
    late = threading.Event()

    def end() -> None:
        late.set()
        _kill(child)

    watchdog = threading.Timer(deadline_s, end)
    watchdog.start()
    try:
        ending = _follow(child, on_progress)
        status = child.wait()
    finally:
        watchdog.cancel()
        _kill(child)
        if child.stdout:
            child.stdout.close()
        child.wait()
    if ending.error is not None:
        raise ending.error
    if ending.result is None:
        raise _crash(subject, log, status, ending.step, deadline_s if late.is_set() else None)
    result: Result = from_json(job.result, ending.result)
    return result


IN_WORKER = "EDGEQ_IN_WORKER"
"""Set in the environment of a worker, where no other worker may be started."""


def _environment(workdir: Path) -> dict[str, str]:
    return {
        # Corrections run beside each other: more threads in each would only wait for each other.
        "OPENBLAS_NUM_THREADS": "1",
        **os.environ,
        IN_WORKER: "1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "CUDA_VISIBLE_DEVICES": "-1",  # results must not depend on a GPU
        "KERAS_BACKEND": "tensorflow",
        "PYTHONHASHSEED": "0",
        "PYTHONWARNINGS": "ignore",
        "TMPDIR": str(workdir),
    }


def _follow(child: subprocess.Popen[str], on_progress: Progress | None) -> _Ending:
    what, done, total = "", 0, 1
    result: Mapping[str, Any] | None = None
    error: ConverterError | None = None
    if child.stdout is None:
        raise TypeError("the worker was started without a pipe")
    for line in child.stdout:
        event = json.loads(line)
        kind = event["event"]
        if kind == "step":
            what, done, total = event["what"], 0, event["total"]
        elif kind == "advance":
            done += event["amount"]
        elif kind == "result":
            result = event["result"]
        elif kind == "error":
            error = ConverterError.from_dict(event["error"])
        if on_progress and what and kind in {"step", "advance"}:
            on_progress(what, done, total)
    return _Ending(step=what, result=result, error=error)


def _kill(child: subprocess.Popen[str]) -> None:
    if child.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


def _crash(subject: str, log: Path, status: int, step: str, late_s: float | None) -> ConverterError:
    during = f"during `{step}`" if step else "while it read the model"
    # Before the first step the worker has only read the model: a crash there means a damaged file.
    code = "EQ310" if step else "EQ303"
    if late_s is not None:
        return ConverterError(
            code,
            subject,
            f"not done within {late_s:g} s ({during}); the process was killed",
            hint="check that the file is complete; give fewer samples or a longer deadline",
        )
    ended = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    relevant = [line for line in lines if not _NOISE.match(line)] or ["no message"]
    message = " ".join(relevant[-1].split())[:200]
    return ConverterError(
        code,
        subject,
        f"the worker process crashed {during} ({ended}): {message}",
        hint="is the file complete? `edgeq evaluate MODEL --data DATA.npz` runs it",
    )
