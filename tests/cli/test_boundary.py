"""Error boundary: one line, a hint and an exit status; results on stdout, diagnostics on stderr."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from edgeq import errors
from edgeq.cli import main
from edgeq.cli.root import COMMANDS, Section, root
from edgeq.files import write_atomic
from edgeq.units import parse_duration, parse_size

EDGEQ = Path(sys.executable).with_name("edgeq")


def every_command() -> list[tuple[str, ...]]:
    """Return every command and subcommand by name."""
    paths: list[tuple[str, ...]] = []

    def walk(group: click.Group, path: tuple[str, ...]) -> None:
        context = click.Context(group)
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            paths.append((*path, name))
            if isinstance(command, click.Group):
                walk(command, (*path, name))

    walk(root, ())
    return paths


def leaf(path: tuple[str, ...]) -> click.Command:
    command: click.Command | None = root
    for name in path:
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), name)
    assert command is not None
    return command


@pytest.mark.parametrize("path", every_command(), ids=" ".join)
def test_every_command_has_help_with_examples_and_json(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*path, "-h"]) == 0
    text = capsys.readouterr().out
    command = leaf(path)
    if isinstance(command, click.Group):
        return
    assert "Examples:" in text
    assert f"edgeq {' '.join(path)}" in text
    for option in ("--json", "-q, --quiet", "-v, --verbose"):
        assert text.count(f"  {option} ") == 1, option


@pytest.mark.parametrize("path", every_command(), ids=" ".join)
def test_the_examples_of_every_command_parse(path: tuple[str, ...]) -> None:
    import shlex

    command = leaf(path)
    if isinstance(command, click.Group):
        return
    examples = [
        line.strip() for line in (command.epilog or "").splitlines() if line.strip().startswith("edgeq ")
    ]
    for example in examples:
        words = shlex.split(example)
        for stop in (">", "|", "&&"):
            if stop in words:
                words = words[: words.index(stop)]
        # An example may show the command that comes next; the first is the command's own.
        shown = next(known for known in every_command()[::-1] if tuple(words[1 : 1 + len(known)]) == known)
        assert shown == path or example != examples[0], example
        # Parsing alone: options and arguments are known and complete; nothing runs.
        target = leaf(shown)
        # With the root's settings: click keeps the names of the help option of a command's first context.
        parent = click.Context(root, **root.context_settings)
        target.make_context(target.name, words[1 + len(shown) :], parent=parent)


def test_the_table_of_commands_is_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    shown = [line.split()[0] for line in text.splitlines() if re.match(r"  [a-z]", line)]
    assert [name for name in shown if name in COMMANDS] == list(COMMANDS)
    headings = [line.rstrip(":") for line in text.splitlines() if re.match(r"[A-Z]\w+:$", line)]
    assert headings == ["Options", *Section]
    for name, entry in COMMANDS.items():
        assert f"  {name:<11}  {entry.help}\n" in text, "each command is one line of 80 columns"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["convrt"], "Did you mean `convert`?"),
        (["nonsense"], "No such command"),
        (["check"], "Missing argument"),
        (["check", "b.toml", "--colour"], "No such option"),
        (["check", "none.toml"], "No such file"),
    ],
)
def test_a_usage_error_is_one_line_and_status_2(
    argv: list[str], words: str, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    first, hint = err.splitlines()
    assert first.startswith("error[EQ1")
    assert words in first
    assert hint.startswith("hint: ")
    assert list(workspace.iterdir()) == []


def test_an_error_under_json_is_a_document(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "none.toml", "--json"]) == 2
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document["schema"] == "edgeq.error/1"
    assert document["error"]["code"] == "EQ110"
    assert document["error"]["exit_status"] == 2
    assert "error[EQ110]" in err


def plant(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make `edgeq check` raise an error from the middle of its work."""

    def fail(*_arguments: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr("edgeq.blueprint.load_blueprint", fail)


TREE = [
    cls
    for cls in vars(errors).values()
    if isinstance(cls, type) and issubclass(cls, errors.EdgeqError)
]  # fmt: skip


@pytest.mark.parametrize("cls", TREE, ids=lambda cls: cls.__name__)
def test_every_error_exits_with_its_status(
    cls: type[errors.EdgeqError],
    workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plant(monkeypatch, cls("pi-4", expected="a", got="b", hint="charge the battery"))
    assert main(["check", "b.toml"]) == cls.exit_status
    assert capsys.readouterr().err == (
        f"error[{cls.code}]: pi-4: expected a, got b\nhint: charge the battery\n"
    )


@pytest.mark.parametrize("cls", TREE, ids=lambda cls: cls.__name__)
def test_every_error_has_a_hint(cls: type[errors.EdgeqError]) -> None:
    assert cls("pi-4").hint
    assert cls("pi-4", hint="run it").hint == "run it"
    if cls is not errors.EdgeqError:
        assert cls.usual_hint != errors.EdgeqError.usual_hint


def test_codes_are_unique() -> None:
    codes = [cls.code for cls in TREE]
    assert len(codes) == len(set(codes))
    assert {cls.exit_status for cls in TREE} <= set(errors.ExitStatus)


def test_a_bug_is_status_70_with_a_log_and_no_traceback(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(monkeypatch, ZeroDivisionError("division\nby zero"))
    assert main(["check", "b.toml"]) == 70
    err = capsys.readouterr().err
    assert err.startswith("error[EQ901]: edgeq: a bug: ZeroDivisionError: division by zero\nhint: ")
    assert "Traceback" not in err
    (log,) = workspace.glob("edgeq-crash-*.log")
    assert "ZeroDivisionError" in log.read_text()


@pytest.mark.parametrize(
    ("error", "text", "hint"),
    [
        (
            OSError(errno.ENOSPC, "x", "a/b"),
            "a/b: cannot be used: No space left on device",
            "free disk space there",
        ),
        (
            OSError(errno.ENOSPC, "x"),
            "disk: cannot be used: No space left on device",
            "free disk space there",
        ),
        (OSError(errno.EROFS, "x", Path("a")), "a: cannot be used: Read-only file system", "--workspace"),
        (PermissionError(errno.EACCES, "x", "a"), "a: cannot be used: Permission denied", "give this user"),
    ],
)
def test_a_disk_error_is_not_a_bug(
    error: OSError,
    text: str,
    hint: str,
    workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plant(monkeypatch, error)
    assert main(["check", "b.toml", "--json"]) == 1
    out, err = capsys.readouterr()
    assert err.startswith(f"error[EQ620]: {text}\nhint: ")
    document = json.loads(out)["error"]
    assert (document["code"], document["exit_status"]) == ("EQ620", 1)
    assert hint in document["hint"]
    assert list(workspace.glob("edgeq-crash-*.log")) == []


def test_another_system_error_is_a_bug(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, OSError(errno.EINVAL, "x"))
    assert main(["check", "b.toml"]) == 70
    assert list(workspace.glob("edgeq-crash-*.log"))


def test_a_file_that_cannot_be_written_is_named(workspace: Path) -> None:
    (workspace / "file").write_text("no folder")
    with pytest.raises(OSError, match=r"agent\.pyz") as caught:
        write_atomic(workspace / "file" / "agent.pyz", b"x")
    assert caught.value.filename == str(workspace / "file" / "agent.pyz")


def test_debug_shows_the_traceback(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(monkeypatch, ZeroDivisionError("by zero"))
    assert main(["--debug", "check", "b.toml"]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_is_status_130(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(monkeypatch, KeyboardInterrupt())
    assert main(["check", "b.toml"]) == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["completion", "bash"], ["convert", "--help"]])
def test_a_closed_pipe_is_status_141(argv: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run([EDGEQ, *argv], stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False)
    finally:
        os.close(writer)
    assert done.returncode == 141
    assert done.stderr == b""


@pytest.mark.parametrize("argv", [["-q", "runs"], ["runs", "-q"], ["-q", "runs", "--quiet"]])
def test_quiet_works_before_and_after_the_command(
    argv: list[str], workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["runs"]) == 0
    assert "no runs recorded yet" in capsys.readouterr().err
    assert main(argv) == 0
    assert capsys.readouterr().err == ""


def test_the_version_names_the_protocol(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("edgeq 0.1.0 (agent protocol 1)")


def test_completion_completes() -> None:
    environment = dict(os.environ, COMP_WORDS="edgeq con", COMP_CWORD="1", _EDGEQ_COMPLETE="bash_complete")
    done = subprocess.run([EDGEQ], capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert "plain,convert" in done.stdout.splitlines()
    for shell in ("bash", "zsh", "fish"):
        script = subprocess.run(
            [EDGEQ, "completion", shell], capture_output=True, text=True, timeout=60, check=True
        )
        assert "_EDGEQ_COMPLETE" in script.stdout


def _options(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Parameter]]:
    context = click.Context(command)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from _options(inner, (*path, name))
    for option in command.params:
        yield " ".join((*path, *option.opts)), option


def test_every_number_on_the_command_line_is_bounded() -> None:
    # A number without an upper bound ends as an OverflowError somewhere below: in the store, or in a sleep.
    unbounded = [
        where
        for where, option in _options(root)
        if not getattr(option, "count", False)
        and isinstance(option.type, click.types.IntParamType | click.types.FloatParamType)
        and getattr(option.type, "max", None) is None
    ]
    assert unbounded == []


@pytest.mark.parametrize(
    "argv",
    [
        ["runs", "--limit", "9" * 30],
        ["quarantine", "show", "9" * 30],
        ["collect", "--all", "--watch", "inf"],
        ["deploy", "x.eqb", "--to", "pi", "--soak", "9" * 400 + "h"],
    ],
)
def test_a_number_beyond_all_bounds_is_a_usage_error(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    assert "EQ101" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["9" * 400 + "h", "9" * 30 + "ns", f"{2**63} ns", "1" * 25 + "GiB"])
def test_a_quantity_beyond_all_bounds_is_a_usage_error(text: str) -> None:
    with pytest.raises(errors.UsageError, match="at most"):
        parse_size(text) if text.endswith("B") else parse_duration(text)


ODD_WORDS = [
    "a" * 300,
    "x/" + "a" * 300,
    "\udcff",
    "",
    ".",
    "/proc/1/none",
    "~no-such-user/x",
    "-",
]


def _with_odd_words(command: click.Command, word: str) -> Iterator[list[str]]:
    """Yield the words of calls of a command that have an odd word in each place for a text or a file.

    A call without any odd word is left out: it does the command's work.
    """

    def given(option: click.Parameter) -> str:
        if isinstance(option.type, click.Choice):
            return str(option.type.choices[0])
        is_number = isinstance(option.type, click.types.IntParamType | click.types.FloatParamType)
        return "1" if is_number else word

    required = [each for each in command.params if each.required]
    options = [each for each in required if isinstance(each, click.Option)]
    words = [each for option in options for each in (option.opts[-1], given(option))]
    arguments = ["--", *(given(each) for each in required if not isinstance(each, click.Option))]
    calls = [[*words, *arguments]]
    for option in command.params:
        if option.required or option.name == "workspace":
            continue
        if not isinstance(option, click.Option):
            calls.append([*words, *arguments, given(option)])
        elif not (option.is_flag or option.count):
            calls.append([*words, option.opts[-1], given(option), *arguments])
    yield from (call for call in calls if word in call)


@pytest.mark.slow
@pytest.mark.parametrize("path", every_command(), ids=" ".join)
def test_no_word_on_the_command_line_is_a_bug(
    path: tuple[str, ...],
    workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command: click.Command = root
    for name in path:
        assert isinstance(command, click.Group)
        inner = command.get_command(click.Context(command), name)
        assert inner is not None
        command = inner
    if isinstance(command, click.Group) or path in {("demo",), ("devices", "emulate")}:
        return
    monkeypatch.chdir(workspace)
    for word in ODD_WORDS:
        for words in _with_odd_words(command, word):
            assert main([*path, *words]) in {0, 1, 2, 3}, words
            printed = capsys.readouterr()
            assert "EQ901" not in printed.err, words


@pytest.mark.parametrize(
    "argv",
    [
        ["devices", "import", "a" * 300, "--dry-run"],
        ["agent", "build", "-o", "a" * 300],
        ["agent", "build", "-o", "/proc/1/none"],
        ["runs", "--kind", "\udcff"],
        ["devices", "add", "pi", "--host", "a" * 70],
        ["devices", "add", "pi", "--host", "a..b"],
    ],
)
def test_a_word_that_fits_nowhere_is_one_line(
    argv: list[str], workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workspace)
    assert main(argv) in {1, 2, 3}
    assert "EQ901" not in capsys.readouterr().err


def test_a_pipe_gets_the_bytes_and_stays_a_pipe(tmp_path: Path) -> None:
    """As does /dev/null, which the user root would otherwise replace by a file."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    descriptor = os.open(pipe, os.O_RDWR)
    try:
        write_atomic(pipe, b"content")
        assert os.read(descriptor, 100) == b"content"
    finally:
        os.close(descriptor)
    assert pipe.is_fifo()
    assert [each.name for each in tmp_path.iterdir()] == ["pipe"]
