"""The parent's side of the worker: starts it, passes progress on, bounds its time, explains its end."""

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
from pathlib import Path
from typing import Any

from edgeq_converters.errors import ConverterError
from edgeq_converters.progress import Progress

_NOISE = re.compile(r"^(WARNING|INFO|[WI]\d{4} |\d{4}-\d\d-\d\d .*: [WI] |\s|To enable the following)")


def run_worker(
    job: Mapping[str, Any],
    *,
    workdir: Path,
    subject: str,
    deadline_s: float,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Run one job in a child process and return its result.

    Args:
        job: {"verb": ..., ...} as edgeq_converters.worker.__main__ reads it.
        workdir: an empty folder for the job, the log and the libraries' files.
        subject: what the job is about, for messages.
        on_progress: called with (step, done, total).

    Raises:
        ConverterError: what the worker reported, or EQ310 when it crashed or passed the deadline.
    """
    (workdir / "job.json").write_text(json.dumps(job), encoding="utf-8")
    log = workdir / "worker.log"
    with log.open("wb") as stderr:
        # -P keeps the current folder off sys.path, where a user's `keras.py` would be imported instead.
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
        last, step = _follow(child, on_progress)
        status = child.wait()
    finally:
        watchdog.cancel()
        _kill(child)
        if child.stdout:
            child.stdout.close()
        child.wait()
    if last.get("event") == "result":
        return dict(last["result"])
    if last.get("event") == "error":
        raise ConverterError.from_dict(last["error"])
    raise _crash(subject, log, status, step, deadline_s if late.is_set() else None)


def _environment(workdir: Path) -> dict[str, str]:
    return {
        **os.environ,
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "CUDA_VISIBLE_DEVICES": "-1",  # results must not depend on whether a GPU is there
        "KERAS_BACKEND": "tensorflow",
        "PYTHONHASHSEED": "0",
        "PYTHONWARNINGS": "ignore",
        "TMPDIR": str(workdir),
    }


def _follow(child: subprocess.Popen[str], on_progress: Progress | None) -> tuple[dict[str, Any], str]:
    """Return the last event and the last step, empty when none was started."""
    what, done, total = "", 0, 1
    last: dict[str, Any] = {}
    if child.stdout is None:
        raise TypeError("the worker was started without a pipe")
    for line in child.stdout:
        last = json.loads(line)
        if last["event"] == "step":
            what, done, total = last["what"], 0, last["total"]
        elif last["event"] == "advance":
            done += last["amount"]
        if on_progress and what and last["event"] in {"step", "advance"}:
            on_progress(what, done, total)
    return last, what


def _kill(child: subprocess.Popen[str]) -> None:
    if child.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


def _crash(subject: str, log: Path, status: int, step: str, late_s: float | None) -> ConverterError:
    during = f"during `{step}`" if step else "while it read the model"
    # Before the first step the worker has only looked at the model: what crashes there is a damaged file.
    code = "EQ310" if step else "EQ303"
    if late_s is not None:
        return ConverterError(
            code,
            subject,
            f"not done within {late_s:g} s ({during}); the process was ended",
            hint="check that the model is whole; give fewer samples or a longer deadline",
        )
    ended = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    relevant = [line for line in lines if not _NOISE.match(line)] or ["it left no message"]
    said = " ".join(relevant[-1].split())[:200]
    return ConverterError(
        code,
        subject,
        f"the worker process crashed {during} ({ended}): {said}",
        hint="check that the model is whole: edgeq evaluate, or load it in Python",
    )
