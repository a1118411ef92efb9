"""The same thing on many devices at once: one failing leaves the others alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from edgeq.errors import EdgeqError, SomeDevicesFailed
from edgeq.values import Device

T = TypeVar("T")

# paramiko's threads share one interpreter; more than a few at once only cost time (and trip MaxStartups).
_AT_ONCE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Results(Generic[T]):
    """What came of it, by device name, in the order asked.

    Attributes:
        done: the values of those that did it.
        failed: the errors of those that did not; bugs are not among them, they are raised.
    """

    done: Mapping[str, T]
    failed: Mapping[str, EdgeqError]


def on_each(devices: Sequence[Device], action: Callable[[Device], T]) -> Results[T]:
    """Run an action for each device, several at once, and wait for all."""
    done: dict[str, T] = {}
    failed: dict[str, EdgeqError] = {}
    with ThreadPoolExecutor(max_workers=max(1, min(_AT_ONCE, len(devices)))) as pool:
        futures = [(device.name, pool.submit(action, device)) for device in devices]
        for name, future in futures:
            try:
                done[name] = future.result()
            except EdgeqError as error:
                failed[name] = error
    return Results(done=done, failed=failed)


def failure(failed: Mapping[str, EdgeqError], *, asked: int, what: str) -> EdgeqError | None:
    """Return what a command over several devices ends with, or None when all did it.

    One device asked: its own error. Several: `SomeDevicesFailed`, which names them.
    """
    if not failed:
        return None
    if asked == 1:
        return next(iter(failed.values()))
    causes = "; ".join(f"{name} ({error.reported_code})" for name, error in failed.items())
    transient = [name for name, error in failed.items() if error.transient]
    return SomeDevicesFailed(
        what,
        f"{len(failed)} of {asked} devices failed: {causes}",
        hint=f"try again: {', '.join(transient)}" if transient else "each device's line says why",
    )
