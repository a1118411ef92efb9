"""`edgeq-agent boot`: what runs when the device has started; settles what the restart interrupted.

With `--supervise`, where no init system does it, it leaves a process behind that serves models.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

from edgeq_agent import wire
from edgeq_agent.autostart import record
from edgeq_agent.calls.call import Call, Response
from edgeq_agent.calls.fields import Fields
from edgeq_agent.calls.stdin import Source
from edgeq_agent.errors import AgentError, from_os, one_line
from edgeq_agent.storage import home, process_token
from edgeq_agent.storage.home import Home
from edgeq_agent.verbs import recover
from edgeq_agent.wire import Json

_CODE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
START = "import sys; sys.path.insert(0, {!r}); from edgeq_agent.__main__ import main; main(sys.argv[1:])"
# Each waits for the lock by itself, too.
_WAITS_S = (0.0, 5.0, 15.0, 30.0)


def main(words: list[str]) -> int:
    """Recover all models and note how that went; return the exit status."""
    parser = argparse.ArgumentParser(prog="edgeq-agent boot")
    parser.add_argument("--home")
    parser.add_argument("--supervise", action="store_true", help="and serve what the service is to serve")
    asked = parser.parse_args(words)
    os.umask(0o077)
    place = home.locate(asked.home)
    problem, models = _recover(place)
    try:
        record.note_start(place, not problem, problem, models)
    except OSError as error:  # a disk that became read-only: said below, and the models still serve
        problem = problem or f"the start could not be noted: {error.strerror}"
    sys.stdout.write(wire.dump({"event": "started", "models": models, "problem": problem}).decode())
    sys.stdout.flush()
    if asked.supervise and (record.read(place) or {}).get("models"):
        supervise(place)
    if problem:
        sys.stderr.write(f"edgeq-agent boot: {problem}\n")
    return 1 if problem else 0


def _recover(place: Home) -> tuple[str, Json]:
    """Return (problem or "", models)."""
    problem = ""
    for wait_s in _WAITS_S:
        time.sleep(wait_s)
        try:
            place.ensure()
            call = Call(Fields({}), Source(sys.stdin.fileno()), place, Response(sys.stdout.buffer))
            return "", recover.recover(call)["models"]
        except AgentError as error:
            problem = one_line(error)
            if not error.transient:
                break
        except OSError as error:
            known = from_os(error)
            problem = one_line(known) if known else str(error)
            break
    return problem, {}


def supervise(place: Home) -> None:
    """Leave a process behind that keeps serving; it ends at once when one is there already."""
    subprocess.Popen(
        [sys.executable, "-I", "-c", START.format(_CODE), "supervise", "--home", place.root],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def supervisor(place: Home) -> str | None:
    """Return the token of the process that keeps serving, or None."""
    body = record.serving(place) or {}
    token = str(body.get("token") or "")
    return token if process_token.alive(token) else None
