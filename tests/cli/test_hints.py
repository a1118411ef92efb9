"""No hint names the command that was just run, nor a device that is not enrolled."""

from __future__ import annotations

import ast
import json
import re
import socket
from pathlib import Path

import click
import pytest

import edgeq
from edgeq import errors
from edgeq.cli.hints import fitting
from edgeq.cli.root import root
from edgeq.testing.loopback import loopback_device
from edgeq.testing.server import Fault
from tests.fleet.cli import Cli

COMMAND = re.compile(r"`edgeq ([^`]+)`")


def hints() -> list[str]:
    """Every hint of the host's sources that names a command; a value in braces is the name of a device."""
    mentioned = set()
    for path in Path(edgeq.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.keyword(arg="hint" | "fix", value=value):
                    text = _text(value)
                case ast.Assign(targets=[target], value=value) if "hint" in ast.unparse(target).lower():
                    text = _text(value)
                case _:
                    continue
            if "`edgeq " in text:
                mentioned.add(text)
    return sorted(mentioned)


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return "pi"
    if isinstance(node, ast.BinOp):
        return _text(node.left) + _text(node.right)
    return ""


def commands() -> list[list[str]]:
    """Every command, as its words."""
    every = []

    def walk(command: click.Command, words: list[str], ctx: click.Context) -> None:
        if not isinstance(command, click.Group):
            every.append(words)
            return
        for name in command.list_commands(ctx):
            inner = command.get_command(ctx, name)
            assert inner is not None
            walk(inner, [*words, name], click.Context(inner, parent=ctx, info_name=name))

    walk(root, [], click.Context(root, info_name="edgeq"))
    return every


def literal(command: str) -> set[str]:
    return {word for word in command.split() if not re.fullmatch(r"[A-Z_]+(\.pub)?|\S*\.\.\.", word)}


@pytest.mark.slow
def test_no_hint_names_the_command_that_was_run() -> None:
    assert len(hints()) > 20
    for hint in hints():
        for command in COMMAND.findall(hint):
            after = [word for word in command.split() if word in literal(command)]
            for words in [after, [*after, "pi"], ["--workspace", "w", *after], *commands()]:
                fitted = fitting(hint, words=words, devices=["pi"], code="EQ400")
                assert fitted
                assert fitted.count("`") % 2 == 0
                for left in COMMAND.findall(fitted):
                    assert not literal(left) <= set(words), (words, fitted)


@pytest.mark.parametrize("words", [["devices", "add", "pi"], ["devices", "emulate", "pi"]])
def test_no_hint_names_a_device_that_is_not_enrolled(words: list[str]) -> None:
    for hint in hints():
        fitted = fitting(hint, words=words, devices=[], code="EQ401")
        for command in COMMAND.findall(fitted):
            # These read the store, which also knows devices that were removed.
            of_the_store = command.split()[0] in ("quarantine", "rollout", "ab")
            # Each value in a hint became "pi"; a version is a number, not a device.
            assert of_the_store or "pi" not in command.replace("--version pi", "").split()[1:], fitted
            assert command not in ("doctor DEVICE", "status DEVICE"), fitted


def test_what_helps_stays() -> None:
    hint = errors.DeviceError.usual_hint
    assert fitting(hint, words=["infer", "kws"], devices=["pi"], code="EQ500") == hint
    assert fitting(hint, words=["status", "pi"], devices=["pi"], code="EQ500") == (
        "`edgeq doctor DEVICE` checks the device"
    )
    assert (
        fitting(hint, words=["doctor", "pi"], devices=["pi"], code="EQ500") == "docs/errors.md explains EQ500"
    )
    retry = "or try again: `edgeq deploy BUNDLE --to DEVICE --retry`"
    assert fitting(retry, words=["deploy", "b.eqb", "--to", "pi"], devices=["pi"], code="EQ520") == retry
    rotate = "read the fingerprint; if it matches: `edgeq devices rotate-key pi --fingerprint SHA256:x`"
    assert fitting(rotate, words=["status"], devices=["pi"], code="EQ402") == rotate
    assert fitting(rotate, words=["devices", "add", "pi"], devices=[], code="EQ402") == "read the fingerprint"


@pytest.mark.slow
def test_real_commands_name_neither(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = Cli(capsys)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        free = listener.getsockname()[1]
    cli.text("devices", "add", "pi", "--host", f"127.0.0.1:{free}", "--retries", "0", status=1)
    assert "edgeq doctor" not in cli.err
    with loopback_device(tmp_path / "device", fault=Fault.NO_EXEC) as device:
        address = f"{device.user}@{device.host}:{device.port}"
        cli.text("devices", "add", "pi", "--host", address, "--identity", str(device.identity), status=1)
        assert "hint: " in cli.err
        assert "`edgeq" not in cli.err
    with loopback_device(tmp_path / "other") as device:
        address = f"{device.user}@{device.host}:{device.port}"
        cli.text("devices", "add", "pi", "--host", address, "--identity", str(device.identity))
        (device.home / ".edgeq").rename(device.home / "away")
        (device.home / ".edgeq").write_text("no folder")
        for words in (["doctor", "pi"], ["status", "pi"]):
            cli.text(*words, status=1)
            assert f"`edgeq {words[0]}" not in cli.err
        entry = (workspace / "devices.toml").read_text()
        (workspace / "devices.toml").write_text(entry + entry.replace("devices.pi]", "devices.second]"))
        document = cli.json("status", "all", status=4)
        assert document["devices"]
        assert "`edgeq status" not in json.dumps(document)
