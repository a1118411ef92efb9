"""Keeps `serve` running where no init system does: started again when it fails, but not for ever."""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import subprocess
import sys
import time
from typing import NoReturn

from edgeq_agent.autostart import boot, record, unit_files
from edgeq_agent.autostart.record import Wanted
from edgeq_agent.storage import disk, home, process_token
from edgeq_agent.storage.home import Home

# As the units say it to systemd.
_PAUSE_S = 2.0
_BURST, _INTERVAL_S = 5, 300.0
_STOP_S = 20.0
_STDERR_BYTES = 4096
_CODE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def main(words: list[str]) -> int:
    """Serve until SIGTERM, or until it failed too often; return the exit status."""
    parser = argparse.ArgumentParser(prog="edgeq-agent supervise")
    parser.add_argument("--home")
    asked = parser.parse_args(words)
    os.umask(0o077)
    signal.signal(signal.SIGTERM, _end)
    place = home.locate(asked.home)
    body = record.read(place)
    if body is None or not body["models"]:
        return 0
    wanted = Wanted(str(body["kind"]), tuple(body["models"]), body["port"])
    with disk.update(os.path.join(record.folder(place.root), "serve.lock")) as held:
        try:
            fcntl.flock(held.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0  # another one is at it
        return _keep(place, unit_files.serve_words(wanted, place.root))


def _keep(place: Home, words: list[str]) -> int:
    failures: list[float] = []
    problem = ""
    while True:
        record.note_serving(place, process_token.token(), len(failures), problem)
        status, problem = _serve(words)
        if status == 0:
            return 0
        now = time.monotonic()
        failures = [at for at in failures if now - at < _INTERVAL_S] + [now]
        if len(failures) >= _BURST:
            record.note_serving(place, "", len(failures), "gave up: " + problem)
            return 1
        time.sleep(_PAUSE_S)


def _serve(words: list[str]) -> tuple[int, str]:
    """Run `serve` to its end; return its exit status and its last word."""
    child = subprocess.Popen(
        [sys.executable, "-I", "-c", boot.START.format(_CODE), *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    last = b""
    try:
        if child.stderr is not None:
            for chunk in iter(lambda: os.read(child.stderr.fileno(), 65536), b""):  # type: ignore[union-attr]
                last = (last + chunk)[-_STDERR_BYTES:]
        status = child.wait()
    finally:
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        if child.stderr is not None:
            child.stderr.close()
    if status < 0:
        return status, f"killed by signal {-status}"
    lines = last.decode("utf-8", "replace").strip().splitlines()
    return status, lines[-1][:200] if lines else f"exit status {status}"


def _end(signum: int, frame: object) -> NoReturn:
    # As an exception, so that `serve` is ended on the way out.
    sys.exit(0)
