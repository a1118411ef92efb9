"""The worker process: `python -m edgeq_converters.worker job.json`. TensorFlow and LiteRT run only here.

Standard output carries JSON lines: {"event": "step"|"advance"|"result"|"error", ...}. Output of the libraries
goes to standard error, which the caller keeps in a log file.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from edgeq_converters.errors import ConverterError
from edgeq_converters.worker import lean_keras, protocol


def main(argv: list[str]) -> int:
    """Do the job in the file `argv[0]` and write its result; return 0 for a result and 1 for an error."""
    # One thread sums in the same order on every machine, and many small products run faster without waiting.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    lean_keras.install()
    events = _own_stdout()
    job = protocol.job_from_json(json.loads(Path(argv[0]).read_text(encoding="utf-8")))

    def send(event: str, **body: Any) -> None:
        events.write(json.dumps({"event": event, **body}) + "\n")
        events.flush()

    try:
        # Only the job's own module is imported: an evaluation loads no optimizer and no training.
        result = import_module(f"edgeq_converters.worker.jobs.{job.verb}").run(job, _stepper(send))
    except ConverterError as error:
        send("error", error=error.to_dict())
        return 1
    except ModuleNotFoundError as error:
        from edgeq_converters.data.files import missing

        send("error", error=missing(error.name or "a library").to_dict())
        return 1
    send("result", result=protocol.to_json(result))
    return 0


def _own_stdout() -> IO[str]:
    # C++ code prints to descriptor 1 at will; the events keep the real standard output to themselves.
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return events


def _stepper(send: Callable[..., None]) -> Callable[[str, int], Callable[[int], None]]:
    def step(what: str, total: int) -> Callable[[int], None]:
        send("step", what=what, total=total)
        return lambda amount: send("advance", amount=amount)

    return step


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
