"""Executors for the candidates of a run: threads of this machine, or the workers of a dask cluster."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager

from edgeq.errors import MissingExtra, UsageError

_CONNECT_S = 20


@contextmanager
def executor_of(*, jobs: int, scheduler: str | None) -> Iterator[Executor | None]:
    """Yield an executor that builds candidates side by side; None where one is built after the other.

    A candidate is built by a process of its own in any case, so threads suffice on one machine.

    Args:
        jobs: how many at a time on this machine; not used with a scheduler.
        scheduler: the address of a dask scheduler, `tcp://HOST:PORT`. Its workers need edgeq, and see these
            files under the same paths.

    Raises:
        MissingExtra: dask.distributed is not installed.
        UsageError: no scheduler answers at the address.
    """
    if scheduler is None:
        if jobs == 1:
            yield None
            return
        with ThreadPoolExecutor(jobs) as threads:
            yield threads
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise MissingExtra(
            "--scheduler", f"{error.name} is not installed", hint="run `pip install 'edgeq[cluster]'`"
        ) from error
    try:
        client = Client(scheduler, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise UsageError(
            scheduler,
            expected="the address of a running dask scheduler, tcp://HOST:PORT",
            got=str(error) or type(error).__name__,
            hint="start one with `dask scheduler`, and workers with `dask worker ADDRESS`",
        ) from error
    with client, client.get_executor(pure=False) as workers:
        yield workers
