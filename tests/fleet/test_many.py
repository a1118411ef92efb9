"""Many devices at once: one that fails leaves the others alone, also when it is a bug."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest

from edgeq.errors import ExitStatus, HealthCheckFailed, InternalError, SomeDevicesFailed, Unreachable
from edgeq.fleet.parallel import combined_error, on_each
from edgeq.values import Device

DEVICES = [Device(name=f"d{number}", host="h", user="u", host_key="k") for number in range(20)]


def test_the_others_are_done_and_the_order_is_kept() -> None:
    def act(device: Device) -> str:
        if device.name == "d3":
            raise Unreachable(device.name, "gone")
        if device.name == "d7":
            raise HealthCheckFailed(device.name, "golden")
        return device.name.upper()

    results = on_each(DEVICES, act)
    assert list(results.done) == [device.name for device in DEVICES if device.name not in {"d3", "d7"}]
    error = combined_error(results.failed, device_count=20, what="deploy")
    assert isinstance(error, SomeDevicesFailed)
    assert error.exit_status is ExitStatus.SOME_DEVICES_FAILED
    assert "2 of 20 devices failed: d3 (EQ401); d7 (EQ504)" in error.message
    assert error.hint == "run the same command again for d3; check d7 with `edgeq doctor d7`"


def test_what_all_failed_devices_have_in_common_is_the_hint() -> None:
    same = {name: HealthCheckFailed(name, "slow", hint="choose a smaller model") for name in ("d1", "d2")}
    error = combined_error(same, device_count=3, what="deploy")
    assert error is not None
    assert error.hint == "d1, d2: choose a smaller model"
    other = {**same, "d3": HealthCheckFailed("d3", "golden", hint="make the bundle again")}
    error = combined_error(other, device_count=3, what="deploy")
    assert error is not None
    assert error.hint == "check d1, d2, d3 with `edgeq doctor d1 d2 d3`"


def test_one_device_fails_with_its_own_error() -> None:
    only = HealthCheckFailed("pi", "golden")
    assert combined_error({"pi": only}, device_count=1, what="deploy") is only
    assert combined_error({}, device_count=1, what="deploy") is None


def test_they_run_at_once_but_not_all() -> None:
    running, most, lock, several = 0, 0, threading.Lock(), threading.Event()

    def act(_device: Device) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            if most > 1:
                several.set()
        several.wait(5)
        with lock:
            running -= 1

    on_each(DEVICES, act)
    assert 1 < most <= 8


@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError("0"),
        RecursionError("deep"),
        MemoryError(),
        KeyError("x"),
        ValueError("\x1b]0;x\x07"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_bug_on_one_device_is_its_error_with_a_log_and_the_others_finish(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def act(device: Device) -> str:
        if device.name == "d3":
            raise error
        return device.name

    results = on_each(DEVICES, act)
    assert len(results.done) == 19
    failure = results.failed["d3"]
    assert isinstance(failure, InternalError)
    assert failure.message.startswith(f"d3: a bug: {type(error).__name__}")
    (log,) = tmp_path.glob("edgeq-crash-*d3.log")
    assert type(error).__name__ in log.read_text("utf-8")
    assert log.name in failure.hint
    combined = combined_error(results.failed, device_count=20, what="collect")
    assert combined is not None
    assert combined.exit_status is ExitStatus.SOME_DEVICES_FAILED
    assert log.name in combined.hint


def test_a_full_disk_is_not_called_a_bug() -> None:
    def act(device: Device) -> None:
        raise OSError(errno.ENOSPC, "full", "/data/x")

    results = on_each(DEVICES[:2], act)
    assert {failure.reported_code for failure in results.failed.values()} == {"EQ620"}


def test_an_interrupt_ends_all() -> None:
    def act(_device: Device) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        on_each(DEVICES[:2], act)


def test_without_devices_nothing_is_done() -> None:
    assert on_each([], lambda device: device).done == {}


def test_one_address_gets_only_a_few_at_once_and_does_not_delay_others() -> None:
    shared = [Device(name=f"s{number}", host="router", user="u", host_key="k") for number in range(12)]
    others = [Device(name=f"o{number}", host=f"h{number}", user="u", host_key="k") for number in range(6)]
    running, most, lock = 0, 0, threading.Lock()
    others_done, order = threading.Semaphore(0), []

    def act(device: Device) -> None:
        nonlocal running, most
        if device.host != "router":
            others_done.release()
            return
        with lock:
            running += 1
            most = max(most, running)
            order.append(device.name)
        # The first to get through the router stay there until all the others are done.
        if len(order) <= 3:
            for _ in range(2):
                assert others_done.acquire(timeout=10)
        with lock:
            running -= 1

    results = on_each([*shared, *others], act, at_once=8, per_host=3)
    assert len(results.done) == 18
    assert most == 3
