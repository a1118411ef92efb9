"""Run jobs of the converters' worker process; the one place where converter errors become edgeq errors."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgeq.errors import DataError, MissingExtra, ModelError, UsageError
from edgeq_converters.errors import ConverterError, translated
from edgeq_converters.progress import Progress
from edgeq_converters.worker.client import IN_WORKER, run_worker
from edgeq_converters.worker.protocol import Job, Result

__all__ = ["ConverterError", "Progress", "WorkerSession", "edgeq_errors", "worker_session"]

# {family of the code: class}: EQ1xx the installation, EQ2xx data, EQ3xx a model.
_FAMILIES: Mapping[str, Callable[..., Exception]] = {"EQ1": MissingExtra, "EQ2": DataError, "EQ3": ModelError}


@contextmanager
def edgeq_errors() -> Iterator[None]:
    """Raise a ConverterError as the edgeq error of its code's family.

    Raises:
        MissingExtra: EQ1xx, a part of the extra `convert` is not installed.
        DataError: EQ2xx, the data.
        ModelError: EQ3xx, the model or its conversion.
    """
    with translated(_FAMILIES):
        yield


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSession:
    """A temporary folder for the files of one job."""

    workdir: Path

    def run(
        self,
        job: Job[Result],
        *,
        subject: Path,
        deadline_s: float,
        on_progress: Progress | None = None,
    ) -> Result:
        """Run one job in a worker process and return its result.

        Args:
            subject: the file that error messages name.
            deadline_s: the worker is killed after this time.
            on_progress: called with (step, done, total).

        Raises:
            ConverterError: the worker's error; `worker_session` turns it into an edgeq error.
        """
        return run_worker(
            job,
            workdir=self.workdir,
            subject=str(subject),
            deadline_s=deadline_s,
            on_progress=on_progress,
        )


@contextmanager
def worker_session(purpose: str) -> Iterator[WorkerSession]:
    """Yield a session for one job; its folder is removed afterwards.

    Args:
        purpose: a word for the name of the temporary folder.

    Raises:
        MissingExtra, DataError, ModelError: as `edgeq_errors`.
        UsageError: this is a worker: the file of a loss, which it imports, calls edgeq again.
    """
    if os.environ.get(IN_WORKER):
        raise UsageError(
            purpose,
            "the training imports the file of its loss, and this file calls edgeq when it is imported",
            hint="put its calls under `if __name__ == '__main__':`, or the loss into a file of its own",
        )
    with (
        edgeq_errors(),
        # A library's background process may still write while the folder is removed.
        tempfile.TemporaryDirectory(prefix=f"edgeq-{purpose}-", ignore_cleanup_errors=True) as folder,
    ):
        yield WorkerSession(workdir=Path(folder))
