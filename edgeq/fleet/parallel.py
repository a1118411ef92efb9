"""Run one action on many devices concurrently; failures are isolated per device."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from edgeq.crash import unexpected
from edgeq.errors import EdgeqError, InternalError, SomeDevicesFailed
from edgeq.values import Device

T = TypeVar("T")

# paramiko's threads share one interpreter; more than a few at once only cost time.
AT_ONCE = 8
# Devices behind one address share its SSH server or router: a burst of connections exceeds MaxStartups.
PER_HOST = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Results(Generic[T]):
    """The results by device name, in the order of the devices.

    Attributes:
        done: the return values.
        failed: the errors. An exception that no code expected is a bug, or a failure of this machine's disk;
            it becomes an error of the device on which it happened, and its traceback is in a log file.
    """

    done: Mapping[str, T]
    failed: Mapping[str, EdgeqError]

    def entries(self, to_dict: Callable[[T], Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return an entry per device, as in `--json` and in the store."""
        return [
            *({"device": name, "ok": True, **to_dict(value)} for name, value in self.done.items()),
            *({"device": name, "ok": False, "error": e.to_dict()} for name, e in self.failed.items()),
        ]


def on_each(
    devices: Sequence[Device],
    action: Callable[[Device], T],
    *,
    at_once: int = AT_ONCE,
    per_host: int = PER_HOST,
) -> Results[T]:
    """Run an action for each device concurrently, and wait for all.

    Args:
        at_once: the maximum number of devices at a time.
        per_host: the maximum at one address at a time; devices at other addresses go first meanwhile.
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
            except Exception as error:  # noqa: BLE001 - raised again by `future.result`
                future.set_exception(unexpected(error, subject=device.name, device=device.name))
            except BaseException as error:  # noqa: BLE001 - raised again by `future.result`
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
    """The waiting devices in order; those at a busy address are skipped."""

    def __init__(self, devices: Sequence[Device], per_host: int) -> None:
        self._waiting = list(devices)
        self._per_host = per_host
        self._busy: Counter[str] = Counter()
        self._changed = threading.Condition()

    def take(self) -> Device | None:
        """Return the next device whose address has capacity, waiting for one; None when none is left."""
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
        """Mark a device as finished."""
        with self._changed:
            self._busy[device.host] -= 1
            self._changed.notify_all()


def combined_error(failed: Mapping[str, EdgeqError], *, device_count: int, what: str) -> EdgeqError | None:
    """Return the error of a command over several devices, or None when all succeeded.

    With one device it is the device's own error; with several, a `SomeDevicesFailed` that names them.
    """
    if not failed:
        return None
    if device_count == 1:
        return next(iter(failed.values()))
    causes = "; ".join(f"{name} ({error.reported_code})" for name, error in failed.items())
    transient = [name for name, error in failed.items() if error.transient]
    bugs = [name for name, error in failed.items() if isinstance(error, InternalError)]
    lasting = [name for name in failed if name not in transient and name not in bugs]
    hints = [f"{name}: {failed[name].hint}" for name in bugs]
    if transient:
        hints.append(f"run the same command again for {', '.join(transient)}")
    own = {failed[name].hint for name in lasting}
    if len(own) == 1 and not any("DEVICE" in hint for hint in own):
        hints.append(f"{', '.join(lasting)}: {own.pop()}")
    elif lasting:
        hints.append(f"check {', '.join(lasting)} with `edgeq doctor {' '.join(lasting)}`")
    return SomeDevicesFailed(
        what, f"{len(failed)} of {device_count} devices failed: {causes}", hint="; ".join(hints)
    )
