"""The same thing on many devices at once: one failing leaves the others alone."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from edgeq.errors import EdgeqError, SomeDevicesFailed
from edgeq.values import Device

T = TypeVar("T")

# paramiko's threads share one interpreter; more than a few at once only cost time.
AT_ONCE = 8
# Devices behind one address share its SSH server or its router: a burst there trips MaxStartups.
PER_HOST = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Results(Generic[T]):
    """What came of it, by device name, in the order asked.

    Attributes:
        done: the values of those that did it.
        failed: the errors of those that did not; bugs are not among them, they are raised.
    """

    done: Mapping[str, T]
    failed: Mapping[str, EdgeqError]


def on_each(
    devices: Sequence[Device],
    action: Callable[[Device], T],
    *,
    at_once: int = AT_ONCE,
    per_host: int = PER_HOST,
) -> Results[T]:
    """Run an action for each device, several at once, and wait for all.

    Args:
        at_once: the most at one time.
        per_host: the most at one time to one address; others go first meanwhile.
    """
    done: dict[str, T] = {}
    failed: dict[str, EdgeqError] = {}
    futures = {device.name: Future[T]() for device in devices}
    queue = _Queue(devices, per_host)

    def work() -> None:
        while (device := queue.take()) is not None:
            future = futures[device.name]
            try:
                future.set_result(action(device))
            except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
                future.set_exception(error)
            finally:
                queue.give_back(device)

    workers = max(1, min(at_once, len(devices)))
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="edgeq-device") as pool:
        for _ in range(workers):
            pool.submit(work)
        for name, future in futures.items():
            try:
                done[name] = future.result()
            except EdgeqError as error:
                failed[name] = error
    return Results(done=done, failed=failed)


class _Queue:
    """The devices that wait, in order; of a host that is busy none is given out."""

    def __init__(self, devices: Sequence[Device], per_host: int) -> None:
        self._waiting = list(devices)
        self._per_host = per_host
        self._busy: Counter[str] = Counter()
        self._changed = threading.Condition()

    def take(self) -> Device | None:
        """Return the next device whose host has room, waiting for one; None when none is left."""
        with self._changed:
            while self._waiting:
                for device in self._waiting:
                    if self._busy[device.host] < self._per_host:
                        self._waiting.remove(device)
                        self._busy[device.host] += 1
                        return device
                self._changed.wait()
            return None

    def give_back(self, device: Device) -> None:
        """Its host has room again."""
        with self._changed:
            self._busy[device.host] -= 1
            self._changed.notify_all()


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
