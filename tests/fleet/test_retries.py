"""Retries, and calls that must not be retried, against a real device behind a link that fails."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import numpy as np
import pytest

from edgeq.bundle.archive import read_bundle
from edgeq.cli import main
from edgeq.cli.device_options import DEFAULT_RETRIES, DEPLOY_RETRIES
from edgeq.cli.root import root
from edgeq.errors import AuthenticationFailed, DeviceError, EdgeqError, HostKeyMismatch, LinkLost
from edgeq.fleet import operations
from edgeq.fleet.agent.client import AgentClient
from edgeq.fleet.agent.payloads import load_samples
from edgeq.fleet.backoff import Backoff
from edgeq.fleet.connect import RetryPolicy, open_agent
from edgeq.fleet.deploy import deploy_one, plan_one
from edgeq.fleet.enrol import fetch_host_key
from edgeq.fleet.inventory import Inventory
from edgeq.fleet.operations import infer, rollback, status
from edgeq.testing.faulty_link import FaultyLink, faulty_link
from edgeq.testing.loopback import loopback_device
from edgeq.values import Device, TransportKind

SOON = Backoff(tries=3, first_s=0.1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Site:
    """An enrolled device with two releases, behind a link."""

    device: Device
    link: FaultyLink
    workspace: Path
    releases: tuple[str, str]
    direct: Device

    def cut_in_the_next_call(self) -> tuple[RetryPolicy, list[EdgeqError]]:
        """Cut the link in the middle of the first try, and restore it from the second on."""
        failures: list[EdgeqError] = []

        def restore(error: EdgeqError, _wait_s: float) -> None:
            failures.append(error)
            self.link.clear()

        # More than a login, less than a login with a call of the agent.
        before = self.link.forwarded_bytes
        with open_agent(self.device):
            login_bytes = self.link.forwarded_bytes - before
        self.link.cut_after(login_bytes + 300)
        return RetryPolicy(backoff=SOON, on_retry=restore), failures


@pytest.fixture(scope="module")
def deployed(
    loopback_server: Any,
    tmp_path_factory: pytest.TempPathFactory,
    wheels_folder: Path,
    publisher: Path,
    bundles: dict[str, Path],
) -> tuple[Device, Path]:
    """A device of its own folder with two releases, and its workspace."""
    workspace = tmp_path_factory.mktemp("retries")
    (workspace / ".edgeq").mkdir()
    (workspace / ".edgeq" / "wheels").symlink_to(wheels_folder)
    shutil.copytree(publisher / ".edgeq" / "keys", workspace / ".edgeq" / "keys")
    device = loopback_server.enrol(workspace, home=".edgeq-retries")
    for name in ("first", "second"):
        deploy_one(device, read_bundle(bundles[name]), workspace=workspace)
    return device, workspace


@pytest.fixture
def transport() -> str:
    return "paramiko"


BOTH = pytest.mark.parametrize("transport", ["paramiko", pytest.param("openssh", marks=pytest.mark.sshd)])


@pytest.fixture
def lab(deployed: tuple[Device, Path], bundles: dict[str, Path], transport: str) -> Iterator[Site]:
    direct, workspace = deployed
    first, second = (read_bundle(bundles[name]) for name in ("first", "second"))
    if status(direct).models["double"].current != second.release:
        deploy_one(direct, second, workspace=workspace)
    with faulty_link(direct.host, direct.port) as link:
        device = dataclasses.replace(direct, port=link.port, transport=TransportKind(transport))
        yield Site(
            device=device,
            link=link,
            workspace=workspace,
            releases=(first.release, second.release),
            direct=direct,
        )


# What the calls of edgeq.fleet.operations are tried with, by the name of the parameter, or else by its type.
NAMED = {"model": "double", "payload": b""}
MADE_UP = "made-up"
TYPED: dict[Any, tuple[Any, ...]] = {bool: (True, False), str | None: (None,), str: (MADE_UP,), int: (1,)}
WHOLE, CONNECTING = "the whole command", "connecting"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Operation:
    """A call of the agent's verbs on one device, with its arguments."""

    call: Callable[..., Any]
    arguments: dict[str, Any]

    def __call__(self, device: Device, retry: RetryPolicy) -> Any:
        return self.call(device, retry_policy=retry, **self.arguments)

    def __str__(self) -> str:
        values = ", ".join(f"{name}={value}" for name, value in self.arguments.items())
        return f"{self.call.__name__}({values})"


def operations_of(module: ModuleType) -> list[Operation]:
    """Return the calls of a module that take one device and a retry policy, with arguments to try."""
    calls = []
    for call in vars(module).values():
        if not inspect.isfunction(call) or call.__module__ != module.__name__:
            continue
        first, *others = inspect.signature(call, eval_str=True).parameters.values()
        if first.annotation is not Device or "retry_policy" not in {each.name for each in others}:
            continue
        required = [each for each in others if each.default is each.empty]
        values = [(NAMED[each.name],) if each.name in NAMED else TYPED[each.annotation] for each in required]
        names = [each.name for each in required]
        calls += [
            Operation(call=call, arguments=dict(zip(names, chosen, strict=True)))
            for chosen in itertools.product(*values)
        ]
    return calls


def repeated(page: str) -> dict[str, str]:
    """Return what docs/deploy.md says is repeated of each command."""
    section = page.partition("\n## What is retried\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("| ")][1:]
    return {name: what.strip() for names, what in rows for name in re.findall(r"`(\w[\w -]*)`", names)}


PAGE = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text("utf-8")
OPERATIONS = operations_of(operations)
REPEATED = repeated(PAGE)


def test_the_page_says_of_every_operation_what_is_repeated() -> None:
    assert {each.call.__name__ for each in OPERATIONS} >= {"status", "prune", "pin", "rollback", "infer"}
    unknown = [
        str(each) for each in OPERATIONS if REPEATED.get(each.call.__name__) not in (WHOLE, CONNECTING)
    ]
    assert unknown == []


def commands_with_retries(command: click.Command, ctx: click.Context) -> Iterator[tuple[str, int | None]]:
    """Yield (name, default) of each command that has the option `--retries`."""
    for option in command.params:
        if option.name == "retries":
            yield ctx.command_path.partition(" ")[2], option.get_default(ctx)
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            inner = command.get_command(ctx, name)
            assert inner is not None
            yield from commands_with_retries(inner, click.Context(inner, parent=ctx, info_name=name))


def test_the_page_lists_the_commands_that_retry() -> None:
    defaults = dict(commands_with_retries(root, click.Context(root, info_name="edgeq")))
    assert set(defaults) == set(REPEATED)
    assert {name for name, default in defaults.items() if default != DEFAULT_RETRIES} == {
        "deploy",
        "ab start",
    }
    assert defaults["ab start"] == DEPLOY_RETRIES


def chosen(what: str) -> list[Operation]:
    """Return the operations of which this is repeated."""
    return [each for each in OPERATIONS if REPEATED.get(each.call.__name__) == what]


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("operation", chosen(WHOLE), ids=str)
def test_a_verb_whose_link_is_cut_is_asked_again(lab: Site, operation: Operation) -> None:
    retry, failures = lab.cut_in_the_next_call()
    with nullcontext() if MADE_UP not in operation.arguments.values() else suppress(DeviceError):
        assert operation(lab.device, retry)
    assert [error.transient for error in failures] == [True]


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("operation", chosen(CONNECTING), ids=str)
def test_a_verb_that_would_count_twice_is_not_asked_again(lab: Site, operation: Operation) -> None:
    retry, failures = lab.cut_in_the_next_call()
    with pytest.raises(LinkLost):
        operation(lab.device, retry)
    assert failures == []


@pytest.mark.slow
def test_a_plan_whose_link_is_cut_is_made_again(lab: Site, bundles: dict[str, Path]) -> None:
    retry, failures = lab.cut_in_the_next_call()
    assert plan_one(
        lab.device, read_bundle(bundles["second"]), workspace=lab.workspace, retry_policy=retry
    ).plan.is_empty
    assert len(failures) == 1


@pytest.mark.slow
@BOTH
def test_an_inference_whose_link_is_cut_is_not_repeated(lab: Site, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.arange(8, dtype=np.float32).reshape(2, 4))
    payload = load_samples(tmp_path / "data.npz").payload
    retry, failures = lab.cut_in_the_next_call()
    with pytest.raises(LinkLost):
        infer(lab.device, "double", payload, retry_policy=retry)
    assert failures == []
    lab.link.clear()
    assert infer(lab.device, "double", payload, retry_policy=retry).samples == 2


@pytest.mark.slow
@BOTH
def test_the_connection_of_an_inference_is_tried_again(lab: Site, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.arange(8, dtype=np.float32).reshape(2, 4))
    payload = load_samples(tmp_path / "data.npz").payload
    retry, failures = lab.cut_in_the_next_call()
    lab.link.cut_after(100)
    assert infer(lab.device, "double", payload, retry_policy=retry).samples == 2
    assert len(failures) == 1


@pytest.mark.slow
def test_a_rollback_whose_answer_was_lost_goes_back_once(lab: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = lab.releases
    call = AgentClient.call
    lost: list[Any] = []

    def losing(self: AgentClient, verb: str, *args: Any, **more: Any) -> dict[str, Any]:
        answer = call(self, verb, *args, **more)
        if verb == "rollback" and not lost:
            lost.append(answer)
            raise LinkLost("pi", "the connection was lost")
        return answer

    monkeypatch.setattr(AgentClient, "call", losing)
    answer = rollback(lab.device, "double", retry_policy=RetryPolicy(backoff=SOON))
    assert lost[0]["changed"]
    assert (answer.release, answer.previous, answer.changed) == (first, second, True)
    assert status(lab.direct).models["double"].current == first, "not back and forth"


@pytest.mark.slow
@BOTH
def test_what_is_final_is_not_tried_again(lab: Site, tmp_path: Path) -> None:
    failures: list[EdgeqError] = []
    retry = RetryPolicy(backoff=SOON, on_retry=lambda error, _: failures.append(error))
    with loopback_device(tmp_path / "other") as other:
        key = str(fetch_host_key(other.host, other.port, 9))
        wrong = dataclasses.replace(lab.device, identity=other.identity)
        with pytest.raises(AuthenticationFailed):
            status(wrong, retry_policy=retry)
    with pytest.raises(HostKeyMismatch):
        status(dataclasses.replace(lab.device, host_key=key), retry_policy=retry)
    with pytest.raises(DeviceError):
        rollback(lab.device, "no-such-model", retry_policy=retry)
    assert failures == []


def run(
    lab: Site, capsys: pytest.CaptureFixture[str], *argv: str, status: int = 0
) -> tuple[dict[str, Any], str]:
    capsys.readouterr()
    got = main(["--workspace", str(lab.workspace), "-v", *argv, "--json"])
    out, err = capsys.readouterr()
    assert got == status, (got, out, err)
    document: dict[str, Any] = json.loads(out)
    return document, err


@pytest.mark.slow
@pytest.mark.parametrize(
    "argv",
    [
        ("status", "pi"),
        ("prune", "--on", "pi", "--dry-run"),
        ("pin", "double", "--on", "pi"),
        ("unpin", "double", "--on", "pi"),
        ("bench", "double", "--on", "pi", "--runs", "5", "--seconds", "0.1"),
        ("collect", "pi"),
        ("keys", "list", "--on", "pi"),
    ],
)
def test_the_commands_try_again_and_say_so(
    lab: Site, capsys: pytest.CaptureFixture[str], argv: tuple[str, ...]
) -> None:
    Inventory.load(lab.workspace).replace(dataclasses.replace(lab.device, port=1))
    _, err = run(lab, capsys, *argv, "--retries", "0", status=1)
    assert "again in" not in err
    started_s = time.monotonic()
    _, err = run(lab, capsys, *argv, "--retries", "1", status=1)
    assert err.count("; retrying in ") == 1
    assert time.monotonic() - started_s >= 0.5
    Inventory.load(lab.workspace).replace(lab.device)
    run(lab, capsys, *argv)


@pytest.mark.slow
def test_a_plain_deploy_can_soak(
    lab: Site, bundles: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    Inventory.load(lab.workspace).replace(lab.device)
    rollback(lab.direct, "double")
    document, _ = run(lab, capsys, "deploy", str(bundles["second"]), "--to", "pi", "--soak", "10m")
    assert document["devices"][0]["state"] == "soaking"
    assert status(lab.direct).models["double"].state == "soaking"
    rollback(lab.direct, "double")
    _, err = run(lab, capsys, "deploy", str(bundles["second"]), "--to", "pi", "--soak", "soon", status=2)
    assert "error[EQ101]: --soak" in err


@pytest.mark.slow
def test_what_failed_too_often_is_tried_again_on_purpose_alone(
    lab: Site, bundles: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    Inventory.load(lab.workspace).replace(lab.direct)
    for _ in range(10):
        run(lab, capsys, "deploy", str(bundles["wrong"]), "--to", "pi", status=1)
    document, _ = run(lab, capsys, "deploy", str(bundles["wrong"]), "--to", "pi", status=1)
    assert document["error"]["code"] == "EQ520"
    assert "--retry" in document["error"]["hint"]
    document, _ = run(lab, capsys, "deploy", str(bundles["wrong"]), "--to", "pi", "--retry", status=1)
    assert document["error"]["code"] == "EQ504", "the device looked at it again"
    argv = ["deploy", str(bundles["wrong"]), "--to", "pi", "--retry", "--stages", "100%"]
    document, _ = run(lab, capsys, *argv, status=2)
    assert "cannot be combined with --stages" in document["error"]["message"]
