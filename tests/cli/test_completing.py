"""Completion of the names in a workspace: every parameter that takes one; fast, and never an error."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shutil
import struct
import subprocess
import sys
import termios
import time
from dataclasses import replace
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from edgeq.cli.root import root
from edgeq.fleet.rollout import rollout_store
from edgeq.store import Store
from edgeq.testing.tiny_bundle import write_tiny_bundle
from tests.cli.test_boundary import EDGEQ, every_command, leaf
from tests.cli.test_rollout_output import SPEC

DEVICES = """\
[devices.pi]
host = "a"
labels = { site = "lab" }

[devices.pi-2]
host = "b"

[devices.coral]
host = "c"
labels = { site = "roof" }
"""
SELECTORS = ["pi", "pi-2", "coral", "label:site=lab", "label:site=roof", "all"]
# Parameters that name something of the workspace, and what completes them.
TAKES = {
    "selectors": SELECTORS,
    "selector": SELECTORS,
    "names": SELECTORS,
    "devices": ["pi", "pi-2", "coral"],
    "device": ["pi", "pi-2", "coral"],
    "name": ["pi", "pi-2", "coral"],
    "model": ["double"],
    "rollout": ["double-1a2b3c4d-1"],
    "experiment": ["double-1a2b3c4d-1"],
    "key": ["workspace"],
    "signers": ["workspace"],
}
# These name something new.
NEW = {("init",), ("devices", "add"), ("devices", "emulate"), ("keys", "new"), ("bundle", "make")}


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with devices, a model with two releases, a rollout, an experiment and a key."""
    folder = tmp_path_factory.mktemp("known")
    (folder / "devices.toml").write_text(DEVICES)
    with Store.open(folder) as store:
        for seed in (0, 1):
            bundle = write_tiny_bundle(folder / "b.eqb", seed=seed, workspace=folder)
            store.put_release(bundle.release, bundle.manifest, bundle.reference.to_json())
        store.record_experiment("double-1a2b3c4d-1", "started", "me", {})
    spec = replace(SPEC, rollout="double-1a2b3c4d-1", model="double")
    with rollout_store.begin(folder, name="double-1a2b3c4d", bundle=b"", make_spec=lambda _id: spec):
        pass
    return folder


def completed(words: list[str], incomplete: str = "") -> list[str]:
    complete = ShellComplete(root, {}, "edgeq", "_EDGEQ_COMPLETE")
    return [item.value for item in complete.get_completions(words, incomplete) if item.type == "plain"]


def parameters() -> list[tuple[tuple[str, ...], click.Parameter]]:
    """Every parameter of every command that names something of the workspace."""
    every = []
    for path in [*every_command(), ("bundle", "make")]:
        command = leaf(path)
        if isinstance(command, click.Group) or path in NEW - {("bundle", "make")}:
            continue
        for param in command.params:
            named = param.name in TAKES or (param.name == "release" and not param.multiple)
            if named and not isinstance(param.type, click.Path):
                every.append((path, param))
    return every


def test_every_parameter_that_names_something_is_completed(known: Path) -> None:
    every = parameters()
    assert len(every) > 40
    for path, param in every:
        if path == ("bundle", "make") and param.name == "name":
            continue  # of a new bundle
        words = list(path)
        if isinstance(param, click.Option):
            words.append(param.opts[-1])
        else:
            arguments = [each for each in leaf(path).params if isinstance(each, click.Argument)]
            words += ["x"] * [each.name for each in arguments].index(param.name)
        if path == ("bundle", "make"):
            words = ["bundle", "m.tflite", *words[2:]]
        values = completed(["--workspace", str(known), *words])
        if param.name == "release":
            assert len(values) == 2, path
            assert all(len(value) == 12 for value in values)
            continue
        expected = TAKES[str(param.name)]
        if param.name == "name" and isinstance(param, click.Option):
            expected = TAKES["device"]
        assert values == expected, (path, param.name)


def test_only_what_fits_and_what_was_not_given_is_completed(known: Path) -> None:
    ours = ["--workspace", str(known)]
    assert completed([*ours, "status"], "p") == ["pi", "pi-2"]
    assert completed([*ours, "status", "pi"], "p") == ["pi-2"]
    assert completed([*ours, "deploy", "b.eqb", "--to", "pi", "--to"], "p") == ["pi-2"]
    assert completed([*ours, "status"], "label:site=r") == ["label:site=roof"]
    assert completed([*ours, "status"], "x") == []


@pytest.mark.parametrize("place", ["before", "between", "after", "environment", "home"])
def test_the_workspace_is_that_of_the_command_line(
    place: str, known: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    option = ["--workspace", str(known)]
    words = {
        "before": [*option, "devices", "remove"],
        "between": ["devices", *option, "remove"],
        "after": ["devices", "remove", *option],
    }.get(place, ["devices", "remove"])
    if place == "environment":
        monkeypatch.setenv("EDGEQ_WORKSPACE", str(known))
    if place == "home":
        monkeypatch.setenv("HOME", str(known.parent))
        words = ["--workspace", f"~/{known.name}", *words]
    assert completed(words) == ["pi", "pi-2", "coral"]


@pytest.mark.parametrize(
    "damage", ["nothing", "empty", "noise", "binary", "folder", "list", "unreadable", "wrong types"]
)
def test_a_damaged_workspace_completes_nothing_and_says_nothing(
    damage: str, workspace: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    texts = {
        "empty": b"",
        "noise": b"[devices\x00",
        "binary": bytes(range(256)) * 40,
        "list": b"devices = [1, 2]\n",
        "unreadable": b"[devices.pi]\n",
        "wrong types": b"[devices.pi]\nlabels = 3\n[devices.b.labels]\nx = [1]\n",
    }
    hidden = workspace / ".edgeq"
    hidden.mkdir()
    for path in (workspace / "devices.toml", hidden / "store.db", hidden / "rollouts", hidden / "keys"):
        if damage == "folder":
            path.mkdir()
        elif damage in texts:
            path.write_bytes(texts[damage])
            path.chmod(0 if damage == "unreadable" else 0o600)
    before = sorted(path.name for path in hidden.iterdir())
    for command, param in parameters():
        completed([*command, param.opts[-1]] if isinstance(param, click.Option) else list(command))
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    assert sorted(path.name for path in hidden.iterdir()) == before, "completion changes nothing"


def test_completion_loads_neither_the_store_nor_the_transports(known: Path) -> None:
    script = (
        "import sys\n"
        "from click.shell_completion import ShellComplete\n"
        "from edgeq.cli.root import root\n"
        "complete = ShellComplete(root, {}, 'edgeq', '_EDGEQ_COMPLETE')\n"
        "every = ['status'], ['rollback'], ['rollout', 'show'], ['ab', 'stop'], ['deploy', 'b', '--to']\n"
        "for words in every:\n"
        f"    assert complete.get_completions(['--workspace', {str(known)!r}, *words], ''), words\n"
        "heavy = {'sqlalchemy', 'paramiko', 'numpy', 'pydantic', 'rich', 'cryptography', 'tensorflow'}\n"
        "print(*sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


BASH = """\
eval "$({edgeq} completion bash)"
COMP_LINE="edgeq devices remove p" COMP_POINT=22
COMP_WORDS=(edgeq devices remove p)
COMP_CWORD=3
_edgeq_completion edgeq
echo "${{COMPREPLY[@]}}"
"""
FISH = """\
{edgeq} completion fish | source
complete --do-complete "edgeq devices remove p"
"""


@pytest.mark.slow
@pytest.mark.parametrize(("shell", "script"), [("bash", BASH), ("fish", FISH)])
def test_a_real_shell_completes_devices(shell: str, script: str, known: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    environment = {
        **os.environ,
        "PATH": f"{EDGEQ.parent}:{os.environ['PATH']}",
        "EDGEQ_WORKSPACE": str(known),
    }
    done = subprocess.run(
        [shell, "-c", script.format(edgeq=EDGEQ)],
        capture_output=True, text=True, env=environment, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["pi", "pi-2"]
    assert done.stderr == ""


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["rollout", "nonsense"],
        ["devices", "--workspace"],
        ["--workspace", "none", "status", "--nonsense"],
        ["deploy", "b.eqb", "--to"],
        ["exec", "pi", "--"],
        ["bundle"],
        ["keys", "-q"],
        ["monitor", "--alpha", "x"],
        ["search", "--kind", "x", "--candidates"],
        [],
    ],
)
@pytest.mark.parametrize("incomplete", ["", "p", "--", "label:", "'", "a b", "\x1b"])
def test_whatever_is_typed_gives_no_error(
    words: list[str], incomplete: str, workspace: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    completed(words, incomplete)
    assert capfd.readouterr() == ("", "")


def test_a_process_that_completes_prints_no_error(workspace: Path) -> None:
    environment = dict(
        os.environ, COMP_WORDS="edgeq rollout nonsense x", COMP_CWORD="3", _EDGEQ_COMPLETE="bash_complete"
    )
    done = subprocess.run([EDGEQ], capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


class Terminal:
    """An interactive shell on a pseudo-terminal."""

    def __init__(self, argv: list[str], folder: Path, environment: dict[str, str]) -> None:
        controller, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 200, 0, 0))
        self._controller = controller
        self._process = subprocess.Popen(
            argv, stdin=terminal, stdout=terminal, stderr=terminal, cwd=folder, env=environment,
            start_new_session=True,
        )  # fmt: skip
        os.close(terminal)

    def type(self, keys: str, until: str, timeout_s: float = 60) -> str:
        """Type keys and return what the shell printed up to a text."""
        os.write(self._controller, keys.encode())
        shown, end_s = b"", time.monotonic() + timeout_s
        while until.encode() not in shown.replace(b"\a", b""):
            assert time.monotonic() < end_s, shown
            if select.select([self._controller], [], [], 0.2)[0]:
                shown += os.read(self._controller, 65536)
        return shown.decode("utf-8", "replace")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._controller)


# How each shell starts without a person's settings, and how it gets the script.
SHELLS = {
    "zsh -f -i": ("autoload -Uz compinit; compinit -u -D", 'eval "$(edgeq completion zsh)"'),
    "zsh -f -i #fpath": ("fpath=($PWD $fpath); autoload -Uz compinit; compinit -u -D",),
    "bash --norc -i": ('eval "$(edgeq completion bash)"',),
}


@pytest.mark.slow
@pytest.mark.parametrize("shell", SHELLS)
def test_real_shells_complete_the_names_of_the_workspace(tmp_path: Path, shell: str) -> None:
    words = shell.partition(" #")[0].split()
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed")
    (tmp_path / "devices.toml").write_text(DEVICES)
    path = f"{EDGEQ.parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "TERM": "xterm", "HOME": str(tmp_path)}
    script = subprocess.run(["edgeq", "completion", "zsh"], env=environment, capture_output=True, check=True)
    (tmp_path / "_edgeq").write_bytes(script.stdout)
    for typed, shown in (
        ("edgeq status co", "status coral"),
        ("edgeq status label:site=r", "label:site=roof"),
        ("edgeq status label:s", "label:site="),
    ):
        terminal = Terminal(words, tmp_path, environment)
        try:
            for line in SHELLS[shell]:
                terminal.type(f"{line}\n", "")
                time.sleep(0.5)
            terminal.type("echo RE''ADY\n", "READY\r\n")
            assert "label:site=label" not in terminal.type(f"{typed}\t", shown, timeout_s=30)
        finally:
            terminal.close()
