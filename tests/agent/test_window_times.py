"""The times of a window: its duration never depends on the wall clock, and a clock that was set is marked."""

from __future__ import annotations

import pytest

from edgeq_agent.storage import clock
from edgeq_agent.telemetry.merge import merge_windows
from edgeq_agent.telemetry.window import Window, parse_unnumbered, to_json
from edgeq_agent.telemetry.window_builder import Reference, WindowBuilder

S = 1_000_000_000
YEAR = 365 * 24 * 3600 * S


class SetClock(clock.Clock):
    """A clock whose two times the test sets."""

    def __init__(self, wall_ns: int, synced: bool | None = True) -> None:
        self.wall, self.boot, self.is_synced = wall_ns, 100 * S, synced

    def since_boot_ns(self) -> int:
        return self.boot

    def wall_ns(self) -> int:
        return self.wall

    def synced(self) -> bool | None:
        return self.is_synced


def window_of(set_clock: SetClock, step_ns: int, seconds: int = 60) -> Window:
    """Return a window during which the wall clock was moved by `step_ns`."""
    with clock.use(set_clock):
        builder = WindowBuilder(Reference(None, 3))
        builder.add_latency(1000)
        set_clock.boot += seconds * S
        set_clock.wall += seconds * S + step_ns
        window = builder.build()
    assert parse_unnumbered(to_json(window)) == window
    return window


@pytest.mark.parametrize("step_ns", [0, -2 * S, 2 * S, 25 * 3600 * S, -25 * 3600 * S, 55 * YEAR, -40 * YEAR])
def test_a_step_of_the_clock_changes_no_duration(step_ns: int) -> None:
    window = window_of(SetClock(50 * YEAR), step_ns)
    assert window.ended_ns - window.started_ns == 60 * S
    assert window.ended_ns == 50 * YEAR + 60 * S + step_ns
    assert window.clock_synced is (step_ns == 0)
    assert window.uptime_ns == 160 * S


@pytest.mark.parametrize("wall_ns", [0, 5 * S, 1])
def test_a_clock_in_1970_gives_a_valid_window(wall_ns: int) -> None:
    window = window_of(SetClock(wall_ns, synced=False), -wall_ns)
    assert (window.started_ns >= 0, window.ended_ns - window.started_ns) == (True, 60 * S)
    assert window.clock_synced is False


@pytest.mark.parametrize("synced", [True, False, None])
def test_what_the_kernel_states_is_in_the_window(synced: bool | None) -> None:
    assert window_of(SetClock(50 * YEAR, synced), 0).clock_synced is synced
    assert clock.Clock().synced() in (True, False, None)


def test_merged_windows_are_synced_when_all_are() -> None:
    sound, stepped = window_of(SetClock(50 * YEAR), 0), window_of(SetClock(50 * YEAR), 5 * S)
    unknown = window_of(SetClock(50 * YEAR, None), 0)
    assert merge_windows(sound, sound).clock_synced is True
    assert merge_windows(sound, unknown).clock_synced is None
    assert merge_windows(sound, unknown, stepped).clock_synced is False
    assert merge_windows(sound, stepped).uptime_ns == 160 * S
