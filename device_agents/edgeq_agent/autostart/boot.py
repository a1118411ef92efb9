"""`edgeq-agent boot`: finish or undo what a restart interrupted; the autostart runs it after every boot.

With `--supervise`, where no init system keeps the model server running, it leaves a supervisor behind.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

from edgeq_agent import wire
from edgeq_agent.activation import healing, recovery
from edgeq_agent.autostart import record, supervise
from edgeq_agent.errors import AgentError, from_os, one_line
from edgeq_agent.storage.home import Home, locate
from edgeq_agent.wire import Json

# Before each attempt; an attempt also waits for the lock.
_DELAYS_S = (0.0, 5.0, 15.0, 30.0)


def main(words: list[str]) -> int:
    """Recover every model and record the result; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="edgeq-agent boot", description="Finish or undo what a restart interrupted."
    )
    parser.add_argument("--home", help="the agent's folder; default: $EDGEQ_HOME or ~/.edgeq")
    parser.add_argument(
        "--supervise", action="store_true", help="also keep the installed service's model server running"
    )
    options = parser.parse_args(words)
    os.umask(0o077)
    home = locate(options.home)
    problem, models = _recover(home)
    try:
        record.write_start(home, problem, models)
    except OSError as error:  # a disk that became read-only: report it, and serve nevertheless
        problem = problem or f"the start could not be recorded: {error.strerror}"
    sys.stdout.write(wire.dump({"event": "started", "models": models, "problem": problem}).decode())
    sys.stdout.flush()
    installed = record.read(home)
    if options.supervise and installed is not None and installed.models:
        supervise.start(home)
    if problem:
        sys.stderr.write(f"edgeq-agent boot: {problem}\n")
    return 1 if problem else 0


def _recover(home: Home) -> tuple[str, Json]:
    """Return (problem or "", the state of each model)."""
    problem = ""
    for delay_s in _DELAYS_S:
        time.sleep(delay_s)
        try:
            healing.ensure(home)
            healing.heal(home, record.inspections(home))
            results = recovery.recover_all(home)
            return "", {model: result.to_json() for model, result in results.items()}
        except AgentError as error:
            problem = one_line(error)
            if not error.transient:
                break
        except OSError as error:
            known = from_os(error)
            problem = one_line(known) if known else str(error)
            break
    return problem, {}
