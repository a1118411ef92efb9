"""`edgeq devices service` as people type it; what it does on devices is in tests/agent and tests/devices."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from edgeq.cli.device_service import lines, service_command
from edgeq.fleet.autostart import Autostart, ServeOptions, StartKind
from edgeq_agent.http.serve import serve_parser
from tests.fleet.cli import Cli
from tests.fleet.servers import Server
from tests.fleet.test_commands import add


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


@pytest.mark.slow
def test_a_device_without_a_start_says_so_and_what_it_could_be(
    cli: Cli, loopback_server: Server, site: Path
) -> None:
    add(cli, loopback_server)
    document = cli.json("devices", "service", "pi")
    assert (document["schema"], document["device"], document["enabled"]) == (
        "edgeq.devices.service/1",
        "pi",
        False,
    )
    assert document["choice"] in {kind.value for kind in StartKind}
    out = cli.text("devices", "service", "pi", "--status")
    assert "no boot service is installed" in out
    assert "next: edgeq devices service pi --enable" in cli.err
    assert cli.json("devices", "service", "pi", "--disable")["changed"] is False
    checks = cli.json("doctor", "pi")["checks"]
    (check,) = [check for check in checks if check["name"] == "service"]
    assert (check["health"], check["fix"]) == ("warn", "run `edgeq devices service pi --enable`")


@pytest.mark.first_is_quick
@pytest.mark.parametrize(
    ("more", "status", "message"),
    [
        (["--kind", "plain"], 2, "requires --enable"),
        (["--disable", "--serve", "kws"], 2, "requires --enable"),
        (["--enable", "--disable"], 2, "exclude each other"),
        (["--enable", "--port", "8080"], 2, "requires --serve"),
        (["--enable", "--socket", "/run/e/s.sock"], 2, "--socket: requires --serve"),
        (["--sessions", "4"], 2, "--sessions requires --enable"),
        (["--enable", "--kind", "termux-boot"], 1, "EQ558"),
        (["--enable", "--serve", "nothing"], 1, "EQ510"),
        (["--enable", "--serve", "../x"], 1, "EQ512"),
    ],
)
def test_what_cannot_be_is_one_line(
    cli: Cli, loopback_server: Server, site: Path, more: list[str], status: int, message: str
) -> None:
    add(cli, loopback_server)
    cli.text("devices", "service", "pi", *more, status=status)
    (line,) = [line for line in cli.err.splitlines() if line.startswith("error[")]
    assert message in line
    assert any(line.startswith("hint: ") for line in cli.err.splitlines())
    assert not (loopback_server.home / ".edgeq" / "service").exists()


ANSWER: dict[str, Any] = {
    "enabled": True,
    "choice": "systemd-user",
    "kind": "systemd-user",
    "at_boot": True,
    "why": None,
    "models": ["kws"],
    "units": [
        {
            "unit": "edgeq.service", "active": "active", "sub": "exited", "result": "success", "restarts": 0,
            "problem": None,
        }
    ],
    "serving": None,
    "last": {
        "ok": True, "problem": "", "since_boot_s": 12.3,
        "models": {"kws": {"state": "rolled_back", "changed": True}, "vww": {"state": "x", "changed": False}},
    },
    "ran_in_this_boot": True,
}  # fmt: skip


def shown(**changes: Any) -> list[str]:
    return lines(Autostart.model_validate({**ANSWER, **changes}))


def test_the_printed_lines() -> None:
    assert shown() == [
        "systemd-user: starts at boot",
        "edgeq.service: active (exited), result success, 0 restarts",
        "serves kws",
        "last run in this boot, 12 s after boot: finished everything (kws rolled_back)",
    ]
    off = shown(at_boot=False, why="linger is off", last=None)
    assert off[0] == "systemd-user: does NOT start at boot (linger is off)"
    assert off[-1] == "it has not run yet"
    unknown = shown(at_boot=None, why="only a restart shows it")
    assert unknown[0] == "systemd-user: no boot seen yet (only a restart shows it)"


# A boot service has another word for these, or sets them itself.
OWN = {"help", "home", "model", "port", "token-file"}


def test_a_boot_service_can_have_every_option_of_the_server() -> None:
    serve = {action.option_strings[-1][2:] for action in serve_parser(argparse.ArgumentParser)._actions}  # noqa: SLF001
    values: dict[str, Any] = {each.name: "x" for each in dataclasses.fields(ServeOptions)}
    sent = set(ServeOptions(**{**values, "allow_origin": ("x",)}).by_name)
    assert sent == serve - OWN
    typed = {option.removeprefix("--") for param in service_command.params for option in param.opts}
    assert serve - OWN - {"unix"} <= typed
    assert {"socket", "port", "token-file", "serve"} <= typed
