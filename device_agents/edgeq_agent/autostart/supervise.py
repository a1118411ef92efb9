"""`edgeq-agent supervise`: keep the model server running where no init system does.

The server is restarted when it fails, with the same limits that the systemd unit sets.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import subprocess
import sys
import time
from typing import NoReturn

from edgeq_agent.autostart import command, record, service_log, unit_files
from edgeq_agent.autostart.record import Supervision
from edgeq_agent.errors import SERVICE_IMPOSSIBLE, AgentError
from edgeq_agent.storage import disk, log_file, process_token
from edgeq_agent.storage.home import Home, locate

# As RestartSec, StartLimitBurst and StartLimitIntervalSec of the unit.
_RESTART_DELAY_S = 2.0
_BURST, _INTERVAL_S = 5, 300.0
# The server gets this long to end after SIGTERM, and the supervisor a little more.
_SERVER_STOP_S = 20.0
_STOP_S = 25.0
_STDERR_BYTES = 4096


def main(words: list[str]) -> int:
    """Serve until SIGTERM, or until the server failed too often; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="edgeq-agent supervise",
        description="Run the installed service's model server; restart it on failure.",
    )
    parser.add_argument("--home", help="the agent's folder; default: $EDGEQ_HOME or ~/.edgeq")
    options = parser.parse_args(words)
    os.umask(0o077)
    signal.signal(signal.SIGTERM, _exit)
    home = locate(options.home)
    installed = record.read(home)
    if installed is None or not installed.models:
        return 0
    with disk.update(os.path.join(record.folder(home.root), "serve.lock")) as lock_file:
        try:
            fcntl.flock(lock_file.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0  # another supervisor runs
        return _supervise(home, unit_files.serve_words(installed.spec, home.root))


def start(home: Home) -> None:
    """Start a supervisor in the background; it ends at once when another one runs."""
    subprocess.Popen(
        command.agent("supervise", "--home", home.root),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def stop(home: Home) -> None:
    """End the supervisor and its server, if they run.

    Raises:
        AgentError: EQ558 (transient), it does not end.
    """
    token = _running(home)
    if token is None:
        return
    pid = int(token.partition(".")[0])
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_S
    while _running(home) is not None:
        if time.monotonic() >= deadline:
            raise AgentError(
                SERVICE_IMPOSSIBLE,
                f"process {pid}",
                f"the model server did not end within {_STOP_S:g} s",
                hint="try again in a moment",
                transient=True,
            )
        time.sleep(0.1)


def failure(home: Home) -> str:
    """Return why the server ended last, or ""."""
    current = record.supervision(home)
    return current.problem if current else ""


def _running(home: Home) -> str | None:
    """Return the token of the supervisor that runs, or None."""
    current = record.supervision(home)
    return current.token if current and process_token.alive(current.token) else None


def _supervise(home: Home, words: list[str]) -> int:
    failures: list[float] = []
    problem = ""
    while True:
        record.write_supervision(home, Supervision(process_token.token(), len(failures), problem))
        status, problem = _run_server(words, service_log.path(home))
        ended = problem or f"exit status {status}"
        log_file.append(service_log.path(home), f"the server ended: {ended}")
        if status == 0:
            return 0
        now = time.monotonic()
        failures = [at for at in failures if now - at < _INTERVAL_S] + [now]
        if len(failures) >= _BURST:
            record.write_supervision(home, Supervision("", len(failures), "gave up: " + problem))
            return 1
        time.sleep(_RESTART_DELAY_S)


def _run_server(words: list[str], log: str) -> tuple[int, str]:
    """Run the server to its end; return its exit status and the last line of its standard error.

    Its standard error goes to the log. A full disk must not end the server, so a failure to write is dropped.
    """
    server = subprocess.Popen(
        command.agent(*words),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    tail = b""
    try:
        if server.stderr is not None:
            for chunk in iter(lambda: os.read(server.stderr.fileno(), 65536), b""):  # type: ignore[union-attr]
                tail = (tail + chunk)[-_STDERR_BYTES:]
                log_file.append(log, chunk.decode("utf-8", "replace").rstrip("\n"))
        status = server.wait()
    finally:
        if server.poll() is None:
            server.terminate()
            try:
                server.wait(_SERVER_STOP_S)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
        if server.stderr is not None:
            server.stderr.close()
    if status < 0:
        return status, f"killed by signal {-status}"
    lines = tail.decode("utf-8", "replace").strip().splitlines()
    return status, lines[-1][:200] if lines else f"exit status {status}"


def _exit(signum: int, frame: object) -> NoReturn:
    # As an exception, so that the server is ended on the way out.
    sys.exit(0)
