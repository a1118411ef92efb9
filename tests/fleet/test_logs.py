"""`edgeq logs` on a real device: several devices, following, hostile text, ages and times."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from edgeq.errors import UsageError
from edgeq.fleet.logs import Followed, since_request, when
from edgeq_agent.storage import home, journal, log_file
from tests.fleet.cli import Cli
from tests.fleet.servers import Server


def test_the_logs_of_a_device_and_of_one_that_is_gone(
    loopback_server: Server, site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = Cli(capsys)
    loopback_server.enrol(site, "one", home=".edgeq-logs")
    place = home.Home(str(loopback_server.home / ".edgeq-logs"))
    log_file.append(place.crash_log, "status: Traceback\n\x1b]0;x\x07 boom")
    journal.append(place, "pin", model="tiny\x1b[2J")
    out = cli.text("logs", "one", "--lines", "2")
    assert "\x1b" not in out + cli.err
    assert "crash    status: Traceback\n" in out
    assert "journal  pin model=tiny\\x1b[2J\n" in out
    text = (site / "devices.toml").read_text()
    (site / "devices.toml").write_text(
        text + text.replace("devices.one", "devices.gone").replace(f"= {loopback_server.port}", "= 1")
    )
    body = cli.json("logs", "all", "--retries", "0", "--source", "journal", status=4)
    assert [one["ok"] for one in body["devices"]] == [True, False]
    assert {entry["source"] for entry in body["devices"][0]["entries"]} == {"journal"}


@pytest.mark.slow
def test_following_yields_each_entry_once(loopback_server: Server, site: Path) -> None:
    device = loopback_server.enrol(site, "two", home=".edgeq-follow")
    with Followed([device], lines=5, since=None, sources=("journal",)) as followed:
        rounds = (results.done["two"].entries for results in followed.rounds())
        before = next(rounds)
        assert next(rounds) == ()
        journal.append(home.Home(str(loopback_server.home / ".edgeq-follow")), "prune")
        after = next(rounds)
        assert [entry.text.partition(" ")[0] for entry in after] == ["prune"]
        assert not {entry.time_ns for entry in before} & {entry.time_ns for entry in after}
        assert list(itertools.islice(rounds, 1)) == [()]


def test_since_is_an_age_or_a_time() -> None:
    assert since_request(None) == {}
    assert since_request("2h") == {"since_s": 7200}
    assert since_request("1970-01-02T00:00:00+00:00") == {"since_ns": 86400 * 10**9}
    for text in ("", "x", "1900-01-01", "-1h", "2026-13-01"):
        with pytest.raises(UsageError):
            since_request(text)


def test_any_time_of_a_device_can_be_shown() -> None:
    assert when(0) == "-"
    assert when(1_795_487_191_668_493_442) == "2026-11-24 02:26:31"
    assert when(2**63 - 1).startswith("2262")
