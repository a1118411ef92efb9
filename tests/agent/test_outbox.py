"""The outbox: each window reaches the host once, a full outbox merges, no number is used twice."""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeq_agent import wire
from edgeq_agent.storage import home
from edgeq_agent.telemetry import ddsketch, outbox, outbox_file
from edgeq_agent.telemetry.merge import merge_windows
from edgeq_agent.telemetry.window import InputCounts, OutputCounts, Window
from tests.telemetry.golden import window_json


def _window(latency_ns: int = 1000, **changes: Any) -> Window:
    sketch = ddsketch.SketchBuilder()
    sketch.add(latency_ns)
    window = Window(
        started_ns=latency_ns,
        ended_ns=latency_ns + 1,
        inferences=1,
        errors={},
        latency=sketch.build(),
        inputs=(InputCounts("x", ((1, 0),)),),
        output=OutputCounts((1, 0), (0, 1)),
        memory_peak_bytes=latency_ns,
    )
    return replace(window, **changes)


@pytest.fixture
def place(tmp_path: Path) -> home.Home:
    home_folder = home.locate(str(tmp_path / "home"))
    home_folder.ensure()
    return home_folder


def change(place: home.Home, statement: str, row: tuple[Any, ...] = ()) -> None:
    """Change the file of the outbox past the agent."""
    with contextlib.closing(sqlite3.connect(place.outbox, isolation_level=None)) as database:
        database.execute(statement, row)


def test_windows_stay_until_they_are_acknowledged(place: home.Home) -> None:
    with outbox.opened(place) as box:
        assert [box.append("m", "r", _window()) for _ in range(5)] == [1, 2, 3, 4, 5]
        boot, first = box.take(3)
        assert boot == box.boot
        assert [window["seq"] for window in first] == [1, 2, 3]
        assert [window["seq"] for window in box.take(10)[1]] == [1, 2, 3, 4, 5]
        assert box.acknowledge(boot, 3) == 3
        assert box.acknowledge(boot, 3) == 0
        assert [window["seq"] for window in box.take(10)[1]] == [4, 5]
        assert box.acknowledge("another boot", 99) == 0
        assert box.pending() == 2


def test_a_window_that_was_never_sent_stays_whatever_is_acknowledged(place: home.Home) -> None:
    with outbox.opened(place) as box:
        for _ in range(5):
            box.append("m", "r", _window())
        boot, first = box.take(2)
        assert len(first) == 2
        assert box.acknowledge(boot, 99) == 2
        assert [window["seq"] for window in box.take(10)[1]] == [3, 4, 5]


def test_numbering_continues_after_all_windows_were_acknowledged(place: home.Home) -> None:
    with outbox.opened(place) as box:
        box.append("m", "r", _window())
        box.acknowledge(box.boot, 1)
    with outbox.opened(place) as box:
        assert box.append("m", "r", _window()) == 2


def open_window(mark: str, **changes: Any) -> outbox.OpenWindow:
    return outbox.OpenWindow("m", "r", mark, _window(**changes))


def test_a_window_keeps_the_number_that_it_got_when_it_began(place: home.Home) -> None:
    with outbox.opened(place) as box:
        box.begin(open_window("9-a"))
        box.begin(open_window("9-a"))
        assert box.append("m", "r", _window()) == 2
        assert box.append("m", "r", _window(), "9-a", following=open_window("9-b")) == 1
        assert box.append("m", "r", _window()) == 4
        assert box.begun() == ["9-b"]
        box.discard("9-b")
        assert (box.begun(), box.lose(["9-b"])) == ([], 0)
        assert [window["seq"] for window in box.take(10)[1]] == [1, 2, 4]


def test_a_lost_window_is_an_empty_one_of_the_boot_in_which_it_began(place: home.Home) -> None:
    with outbox.opened(place) as box:
        began, box.boot = box.boot, "older:nonce"
        box.begin(open_window("9-a", inferences=0))
        box.boot = began
        assert box.lose(["9-a", "9-unknown"]) == 1
        assert box.lose(["9-a"]) == 0
        boot, (window,) = box.take(10)
    assert (boot, window["boot"], window["seq"], window["lost"]) == ("older:nonce", "older:nonce", 1, 1)
    assert (window["model"], window["release"], window["inferences"]) == ("m", "r", 0)


def test_the_numbers_of_one_collection_ascend(place: home.Home) -> None:
    """A window that began early and ended late is sent by the next collection, and not deleted before."""
    with outbox.opened(place) as box:
        box.begin(open_window("9-a"))
        box.append("m", "r", _window())
        box.append("m", "r", _window())
        boot, sent = box.take(10)
        assert [window["seq"] for window in sent] == [2, 3]
        box.append("m", "r", _window(), "9-a")
        box.append("m", "r", _window())
        assert box.acknowledge(boot, 3) == 2
        assert [window["seq"] for window in box.take(10, (boot, 3))[1]] == [4]
        assert box.acknowledge(boot, 4) == 1
        assert box.take(10, (boot, 4))[1] == []
        assert [window["seq"] for window in box.take(10)[1]] == [1]
        assert box.acknowledge(boot, 1) == 1


def test_a_file_of_an_older_agent_gets_the_table_of_begun_windows(place: home.Home) -> None:
    with outbox.opened(place) as box:
        box.append("m", "r", _window())
    change(place, "DROP TABLE begun")
    change(place, "PRAGMA user_version = 1")
    with outbox.opened(place) as box:
        box.begin(open_window("9-a"))
        assert box.append("m", "r", _window(), "9-a") == 2
        assert box.pending() == 2


@pytest.mark.parametrize(("column", "value"), [("body", "{"), ("body", "{}"), ("seq", "x"), ("seq", 0)])
def test_a_damaged_window_that_has_begun_costs_no_other_window(
    place: home.Home, column: str, value: object
) -> None:
    with outbox.opened(place) as box:
        box.append("m", "r", _window())
        box.begin(open_window("9-a"))
        change(place, f"UPDATE begun SET {column} = ?", (value,))  # noqa: S608
        box.lose(["9-a"])
        assert sum(window["inferences"] for window in box.take(10)[1]) == 1


def test_one_boot_at_a_time_oldest_first(place: home.Home) -> None:
    with outbox.opened(place) as box:
        box.append("m", "r", _window())
        here, box.boot = box.boot, "older:nonce"
        box.append("m", "r", _window())
        box.boot = here
        box.append("m", "r", _window())
        boot, windows = box.take(10)
        assert (boot, [window["seq"] for window in windows]) == (here, [1, 2])
        box.acknowledge(boot, 2)
        assert box.take(10)[0] == "older:nonce"


def test_a_full_outbox_merges_and_loses_no_count(place: home.Home) -> None:
    with outbox.opened(place, cap=10) as box:
        for number in range(95):
            box.append("m", "r", _window(1000 + number))
        assert box.pending() == 10
        _, windows = box.take(100)
    assert sum(window["inferences"] for window in windows) == 95
    assert sum(window.get("merged", 1) for window in windows) == 95
    assert sum(window["latency"]["sum_ns"] for window in windows) == sum(
        1000 + number for number in range(95)
    )
    assert sum(window["inputs"][0]["channels"][0][0] for window in windows) == 95
    assert windows[-1]["seq"] == 95
    assert max(window.get("merged", 1) for window in windows) <= 20  # spread evenly over time
    assert len({window["seq"] for window in windows}) == 10


def test_sent_windows_are_never_merged(place: home.Home) -> None:
    with outbox.opened(place, cap=4) as box:
        for _ in range(4):
            box.append("m", "r", _window())
        _, sent = box.take(2)
        for _ in range(20):
            box.append("m", "r", _window())
        windows = box.take(100)[1]
    assert windows[:2] == sent
    assert sum(window.get("merged", 1) for window in windows) == 24


def test_windows_of_different_releases_are_not_merged(place: home.Home) -> None:
    with outbox.opened(place, cap=3) as box:
        for number in range(9):
            box.append("m", "ab"[number % 2], _window())
        windows = box.take(100)[1]
        assert box.summary().dropped == 0
    for release, count in (("a", 5), ("b", 4)):
        of_release = [window for window in windows if window["release"] == release]
        assert sum(window.get("merged", 1) for window in of_release) == count


def test_without_a_pair_to_merge_the_oldest_window_is_dropped_and_counted(place: home.Home) -> None:
    with outbox.opened(place, cap=3) as box:
        for number in range(5):
            box.append("m", str(number), _window())
        assert box.summary().dropped == 2
        assert [window["release"] for window in box.take(10)[1]] == ["2", "3", "4"]


def test_merging_keeps_sums_and_extremes() -> None:
    merged = merge_windows(_window(1000), _window(3000, temperature_c=51.5, errors={"invoke": 2}))
    assert (merged.started_ns, merged.ended_ns) == (1000, 3001)
    assert (merged.temperature_c, merged.errors, merged.merged) == (51.5, {"invoke": 2}, 2)
    assert merged.memory_peak_bytes == 3000
    assert merged.output == OutputCounts((2, 0), (0, 2))


def test_when_no_rows_can_be_merged_the_oldest_is_dropped_and_counted(place: home.Home) -> None:
    with outbox.opened(place, cap=3) as box:
        for _ in range(3):
            box.append("m", "r", _window())
        change(place, "UPDATE windows SET body = '{' WHERE seq IN (1, 3)")
        box.append("m", "r", _window())
        assert box.summary().dropped == 1
        change(place, "UPDATE windows SET body = '{}' WHERE seq = 3")
        for _ in range(3):
            box.append("m", "r", _window())
        assert box.summary().dropped == 1
        assert sum(window.get("merged", 1) for window in box.take(10)[1]) == 6


def test_a_window_that_cannot_be_merged_costs_no_other_window(place: home.Home) -> None:
    with outbox.opened(place, cap=6) as box:
        for _ in range(6):
            box.append("m", "r", _window())
        # Earlier agents stored such a window when the clock was set back while it was open.
        set_back = "UPDATE windows SET body = json_set(body, '$.ended_ns', 1) WHERE seq = 4"
        change(place, set_back)
        for _ in range(20):
            box.append("m", "r", _window())
        assert box.summary().dropped == 0
        assert sum(window["inferences"] for window in box.take(10)[1]) == 26


def test_an_outbox_of_an_older_agent_is_merged_and_sent(place: home.Home) -> None:
    """Its rows hold the bodies that it wrote; the recorded windows are such bodies."""
    recorded = [window_json("arm b with everything"), window_json("arm b again")]
    with outbox.opened(place, cap=2) as box:
        for seq, body in enumerate(recorded, 1):
            body.update(boot=box.boot, seq=seq)
            row = (box.boot, seq, body["model"], body["release"], 1, wire.canonical(body).decode())
            insert = "INSERT INTO windows (boot, seq, model, release, merged, body) VALUES (?, ?, ?, ?, ?, ?)"
            change(place, insert, row)
        assert box.take(1)[1] == recorded[:1]
        change(place, "UPDATE windows SET sent = 0")
        change(place, "INSERT INTO boots VALUES (?, 2)", (box.boot,))
        box.append("m", "r", _window())
        old, new = box.take(10)[1]
    assert (old["merged"], old["seq"], old["feedback"]["labelled"]) == (2, 2, 25)
    assert new["seq"] == 3


def test_a_damaged_file_is_renamed_and_replaced(place: home.Home) -> None:
    with outbox.opened(place) as box:
        box.append("m", "r", _window())
        before = box.boot
    Path(place.outbox).write_bytes(b"damaged" * 1000)
    with outbox.opened(place) as box:
        assert box.boot != before
        assert box.append("m", "r", _window()) == 1
    assert [path.name.split("-")[0] for path in Path(place.root).glob("outbox.db.damaged*")] == [
        "outbox.db.damaged"
    ]


def test_a_connection_syncs_each_transaction(place: home.Home) -> None:
    with contextlib.closing(outbox_file.connect(place.outbox)) as database:
        assert database.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL


def test_a_window_is_on_the_disk_when_append_returns(place: home.Home) -> None:
    with outbox.opened(place) as box:
        box.append("m", "r", _window())
        with sqlite3.connect(place.outbox) as other:
            assert other.execute("SELECT count(*) FROM windows").fetchone()[0] == 1
        other.close()


def test_the_verb_sends_windows_and_deletes_acknowledged_ones(device: Any) -> None:
    place = home.locate(str(device.home))
    place.ensure()
    with outbox.opened(place) as box:
        for _ in range(4):
            box.append("m", "r", _window())
    answered = device.call("telemetry", limit=3)
    assert [event["window"]["seq"] for event in answered.of("window")] == [1, 2, 3]
    result = answered.result
    assert (result["sent"], result["pending"], result["acked"]) == (3, 4, 0)
    result = device.call("telemetry", ack={"boot": result["boot"], "seq": 3}, limit=3).result
    assert (result["sent"], result["pending"], result["acked"]) == (1, 1, 3)
    result = device.call("telemetry", ack={"boot": result["boot"], "seq": 4}).result
    assert (result["sent"], result["pending"], result["acked"]) == (0, 0, 1)
    assert device.call("status").result["outbox"]["last_seq"] == 4
