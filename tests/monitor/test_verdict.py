"""Drift verdicts: named signals, dated alarms, and the promised false-alarm rate."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.bundle.drift_reference import DriftReference, parse_reference
from edgeq.cli import main
from edgeq.errors import DataError, UsageError
from edgeq.monitor import judge, judge_store
from edgeq.monitor.replay import replay_null
from edgeq.store import Store, WindowRecord
from edgeq_agent.telemetry.window import parse, to_json
from tests.telemetry.golden import received, window_json

EDGES = [-1.0, 0.0, 0.25, 0.5, 0.75, 1.0, 2.0]


def _reference(size: int = 400) -> DriftReference:
    quarter = size // 4
    channel = {"edges": EDGES, "counts": [0, quarter, quarter, quarter, quarter, 0]}
    document = {
        "schema": "edgeq.reference/1",
        "inputs": [{"name": "x", "channels": [channel, channel]}],
        "output": {
            "classes": 3,
            "predicted": [size // 2, quarter, quarter],
            "confidence": {"edges": [0.0, 0.5, 1.0], "counts": [quarter, 3 * quarter]},
            "confidence_from": "probabilities",
        },
    }
    return parse_reference(document, subject="test")


def _record(seq: int, random: np.random.Generator, *, lift: float = 0.0, **changes: Any) -> WindowRecord:
    values = random.random((2, 40))
    values[1] += lift
    latency = {"relative_accuracy": 0.01, "counts": {"690": 40}, "count": 40, "sum_ns": 40_000_000}
    body = window_json(
        "verb infer",
        boot="b:n",
        seq=seq,
        release="r1",
        started_ns=seq,
        ended_ns=seq,
        inferences=40,
        latency={**latency, "min_ns": 970_000, "max_ns": 990_000},
        inputs=[{"name": "x", "channels": [np.histogram(row, EDGES)[0].tolist() for row in values]}],
        output={
            "predicted": random.multinomial(40, [0.5, 0.25, 0.25]).tolist(),
            "confidence": random.multinomial(40, [0.25, 0.75]).tolist(),
        },
    )
    window = parse({**body, **changes})
    return WindowRecord(id=seq, device="pi", device_id="d", window=window, sha256="0" * 64)


def _stream(count: int, *, since: int = 10**9, lift: float = 0.4, seed: int = 1) -> list[WindowRecord]:
    random = np.random.default_rng(seed)
    return [_record(seq, random, lift=lift if seq > since else 0.0) for seq in range(1, count + 1)]


def test_a_stream_without_a_shift_raises_no_alarm() -> None:
    verdict = judge(_stream(40), _reference())
    assert not verdict.alarm
    assert verdict.shifted == ()
    assert (verdict.windows, verdict.samples, verdict.at_window) == (40, 1600, None)
    assert [signal.name for signal in verdict.signals] == [
        "input x[0]",
        "input x[1]",
        "predicted class",
        "confidence",
    ]
    assert all(sum(signal.field) == 1600 for signal in verdict.signals)


def test_a_shift_is_named_dated_and_sized() -> None:
    verdict = judge(_stream(30, since=20), _reference())
    assert verdict.alarm
    assert verdict.at_window is not None
    assert 20 <= verdict.at_window <= 23
    assert verdict.at_seq == ("b:n", verdict.at_window + 1)
    (moved,) = verdict.shifted
    assert moved.name == "input x[1]"
    assert moved.since_window in (19, 20, 21)
    assert moved.psi > 0.5
    assert verdict.e_value >= 1 / verdict.alpha
    assert len(verdict.log10_e) == 30


def test_an_alarm_never_ends() -> None:
    early = judge(_stream(30, since=20)[:26], _reference())
    random = np.random.default_rng(9)
    later = [_record(seq, random) for seq in range(27, 60)]
    verdict = judge([*_stream(30, since=20)[:26], *later], _reference())
    assert (verdict.alarm, verdict.at_window) == (early.alarm, early.at_window) == (True, early.at_window)


def test_windows_that_do_not_match_the_reference_are_skipped_with_a_reason() -> None:
    random = np.random.default_rng(2)
    odd = [
        _record(1, random, inputs=[]),
        _record(2, random, output={"predicted": [40, 0], "confidence": [1, 39]}),
        _record(3, random, output={"predicted": [20, 10, 10], "confidence": [1, 2, 3]}),
    ]
    verdict = judge([*odd, _record(4, random)], _reference())
    assert verdict.windows == 1
    assert verdict.skipped == (
        "pi boot b:n seq 1: no counts of input x[0]",
        "pi boot b:n seq 2: predicted class: expected 3 bins, got 2",
        "pi boot b:n seq 3: confidence: expected 2 bins, got 3",
    )
    nothing = judge(odd, _reference())
    assert (nothing.alarm, nothing.windows, nothing.signals) == (False, 0, ())


def test_invalid_arguments_are_refused() -> None:
    for alpha in (0.0, 1.0, -1.0, math.nan):
        with pytest.raises(UsageError, match="alpha"):
            judge([], _reference(), alpha=alpha)
    empty = _reference(0)
    with pytest.raises(DataError, match="no histogram of it can show drift"):
        judge([], empty)


@pytest.mark.slow
def test_the_replay_measures_the_rate_of_the_whole_verdict() -> None:
    for alpha in (0.05, 0.001):
        replay = replay_null(_reference(), alpha=alpha, windows=8, samples_per_window=40, replays=2000)
        assert replay.rate <= alpha
        assert replay.rate <= replay.upper95
        assert replay.false_alarms == round(replay.rate * 2000)
    # The rate is counted, not assumed: with no demand on the evidence there are alarms.
    assert replay_null(_reference(), alpha=0.999999, windows=2, replays=200).rate > 0.05


def fill(folder: Path, *, since: int) -> None:
    with Store.open(folder) as store:
        store.put_release("r1", {"model": "kws"}, _reference().to_json())
        for record in _stream(20, since=since):
            store.ingest("pi", [received(to_json(record.window))])


def test_each_stream_gets_its_own_verdict(tmp_path: Path) -> None:
    fill(tmp_path, since=10)
    with Store.open(tmp_path) as store:
        other = to_json(_stream(1)[0].window)
        changes = {"boot": "b", "release": "unknown", "errors": {"invoke": 2}}
        store.ingest("pi", [received({**other, **changes})])
        first, second = judge_store(store)
        assert first.verdict is not None
        assert first.verdict.alarm
        assert (first.field.windows, second.field.windows, second.verdict) == (20, 1, None)
        assert second.field.total.errors == {"invoke": 2}
        assert judge_store(store, devices=["coral"]) == []
        assert judge_store(store, model="other") == []


def test_the_command_reports_alarms_and_exits_with_their_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / "bad", since=10)
    fill(tmp_path / "good", since=10**9)
    monitor = ["monitor", "pi", "--model", "kws"]
    assert main(["--workspace", str(tmp_path / "bad"), *monitor]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^  ALARM at window \d+ \(boot \S+\), e-value \S+, alarm at 1000$", shown, re.MULTILINE)
    assert "input x[1]" in shown
    assert main(["--workspace", str(tmp_path / "bad"), *monitor, "--exit-code"]) == 3
    assert "error[EQ700]: pi/kws: drift" in capsys.readouterr().err
    assert main(["--workspace", str(tmp_path / "bad"), *monitor, "--exit-code", "--json"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert (document["alarm"], document["error"]["code"]) == (True, "EQ700")
    assert document["streams"][0]["shifted"] == ["input x[1]"]
    assert main(["--workspace", str(tmp_path / "good"), *monitor, "--exit-code", "--replay", "200"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^  no alarm, e-value \S+, alarm at 1000$", shown, re.MULTILINE)
    assert "null replay: 0 alarms on 200 streams" in shown
    assert main(["--workspace", str(tmp_path / "good"), "monitor", "coral"]) == 2
    assert "error[EQ103]: device 'coral': not known" in capsys.readouterr().err
    assert main(["--workspace", str(tmp_path / "good"), "monitor", "label:site=lab"]) == 2
    assert main(["--workspace", str(tmp_path / "good"), "monitor", "pi", "--model", "none"]) == 1
    assert "run `edgeq collect --all`" in capsys.readouterr().err
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    (tmp_path / "good" / "devices.toml").write_text(
        f"[devices.pi]\nhost = 'a'\nuser = 'u'\nhost_key = '{key}'\nlabels = {{site = 'lab'}}\n"
    )
    assert main(["--workspace", str(tmp_path / "good"), "monitor", "label:site=lab", "--json"]) == 0
    assert [one["device"] for one in json.loads(capsys.readouterr().out)["streams"]] == ["pi"]
    assert main(["--workspace", str(tmp_path / "good"), "monitor", "--alpha", "0"]) == 2
