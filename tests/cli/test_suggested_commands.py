"""Every command that edgeq suggests is one: hints, fixes, messages, and what a command names as the next."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import edgeq
import edgeq_agent
import edgeq_converters
from edgeq.cli.root import COMMANDS, root
from edgeq.cli.ui import App, Ui, command

MENTIONED = re.compile(r"`edgeq ([^`]+)`")
SOURCES = [
    path
    for package in (edgeq, edgeq_agent, edgeq_converters)
    for path in sorted(Path(str(package.__file__)).parent.rglob("*.py"))
]
# A value that the source fills in; it is a name and a number.
VALUE = "1"


def text(node: ast.expr) -> str:
    """Return the text of an expression, with VALUE for its values."""
    match node:
        case ast.Constant(value=str(value)):
            return value
        case ast.JoinedStr(values=parts):
            return "".join(map(text, parts))
        case ast.FormattedValue() | ast.Name() | ast.Attribute() | ast.Subscript() | ast.Call():
            return VALUE
    return ""


def help_texts(tree: ast.Module) -> set[int]:
    """Return the nodes of docstrings and of help, which name commands without their arguments."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    nodes: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, kinds) and ast.get_docstring(node) is not None:
            nodes.add(id(node.body[0].value))  # type: ignore[attr-defined]
        if isinstance(node, ast.keyword) and node.arg == "help":
            nodes.update(map(id, ast.walk(node.value)))
    return nodes


def mentioned() -> Iterator[tuple[str, str]]:
    """Yield (where, command) for every command in a text that is printed."""
    for path in SOURCES:
        source = path.read_text(encoding="utf-8")
        if "`edgeq " not in source:
            continue
        tree = ast.parse(source)
        skipped = help_texts(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                skipped.update(map(id, ast.walk(node)))
                skipped.discard(id(node))
            if isinstance(node, ast.Constant | ast.JoinedStr) and id(node) not in skipped:
                for words in MENTIONED.findall(text(node)):
                    if not re.search(r"[\\(^]", words):  # the pattern that finds commands
                        yield f"{path.name}:{node.lineno}", words


def bare(text_: str) -> list[str]:
    """Return the commands in a text that stand outside of backticks, where no test sees them."""
    return [
        name for name in re.findall(r"\bedgeq ([a-z]+)\b", re.sub(r"`[^`]*`", "", text_)) if name in COMMANDS
    ]


def unmarked() -> Iterator[str]:
    """Yield where a hint or a fix names a command without backticks."""
    for path in SOURCES:
        source = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)) if "edgeq " in source else ():
            match node:
                case ast.keyword(arg="hint" | "fix", value=value):
                    pass
                case ast.Assign(targets=[target], value=value) if re.search("hint|fix", ast.unparse(target)):
                    pass
                case _:
                    continue
            parts = {
                id(part)
                for each in ast.walk(value)
                if isinstance(each, ast.JoinedStr)
                for part in each.values
            }
            for inner in ast.walk(value):
                if (
                    isinstance(inner, ast.Constant | ast.JoinedStr)
                    and id(inner) not in parts
                    and (names := bare(text(inner)))
                ):
                    yield f"{path.name}:{inner.lineno}: {names}"


def suggested() -> Iterator[tuple[str, list[str]]]:
    """Yield (where, words) for every call of `ui.next`."""
    for path in SOURCES:
        source = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)) if "ui.next" in source else ():
            match node:
                case ast.Call(func=ast.Attribute(attr="next", value=ast.Attribute(attr="ui")), args=args):
                    words: list[str] = []
                    for each in args:
                        if isinstance(each, ast.Starred):
                            # More values of the same kind, or an option that may be absent.
                            words += map(text, each.value.elts if isinstance(each.value, ast.Tuple) else ())
                        else:
                            words.append(text(each))
                    yield f"{path.name}:{node.lineno}", words


def parsed(words: list[str]) -> click.Command:
    """Parse a command line as edgeq does, without running it.

    Raises:
        ClickException: it is not a command, an option is unknown, or an argument is missing.
    """
    command_: click.Command = root
    ctx = click.Context(root, info_name="edgeq", **root.context_settings)
    if words[:1] == ["bundle"] and words[1:2] not in ([], ["verify"], ["show"]):
        words = ["bundle", "make", *words[1:]]
    while isinstance(command_, click.Group):
        name, inner, words = command_.resolve_command(ctx, words)
        assert inner is not None
        command_, ctx = inner, click.Context(inner, parent=ctx, info_name=name)
        if isinstance(inner, click.Group) and not words:
            return inner
    command_.parse_args(ctx, list(words))
    return command_


def test_every_command_in_a_text_can_be_run() -> None:
    commands = list(mentioned())
    assert len(commands) > 120
    wrong = []
    for where, words in commands:
        try:
            parsed([VALUE if word == "N" else word for word in shlex.split(words)])
        except click.exceptions.Exit:
            continue  # it shows help
        except click.ClickException as error:
            wrong.append(f"{where}: `edgeq {words}`: {error.format_message()}")
    assert wrong == []


def test_a_command_in_a_hint_is_in_backticks() -> None:
    assert bare("`edgeq status` shows it") == []
    assert bare("edgeq sensitivity lists the names") == ["sensitivity"]
    assert list(unmarked()) == []


def test_every_next_command_can_be_run() -> None:
    commands = list(suggested())
    assert len(commands) > 30
    wrong = []
    for where, words in commands:
        if not words:
            continue  # built of a list: tests/cli/test_check.py runs that of `edgeq check`
        try:
            # The decisions are options of their own: --promote and --reject.
            parsed([word.replace(f"--{VALUE}", "--promote") for word in words])
        except click.ClickException as error:
            wrong.append(f"{where}: {words}: {error.format_message()}")
    assert wrong == []


@pytest.mark.parametrize(
    "words", ["deploy", "deploi BUNDLE --to DEVICE", "deploy BUNDLE --on DEVICE", "rollout resume"]
)
def test_the_guard_finds_what_cannot_be_run(words: str) -> None:
    with pytest.raises(click.ClickException):
        parsed(words.split())


@pytest.mark.parametrize(
    ("argv", "again"),
    [
        (["a b.eqb", "--to", "pi", "--to", "x'y", "--dry-run"], "'a b.eqb' --to pi --to 'x'\"'\"'y'"),
        (["a.eqb", "--json", "-q", "--dry-run", "--count", "3"], "a.eqb --count 3"),
        (["--dry-run", "a.eqb", "--yes"], "a.eqb --yes"),
    ],
)
def test_the_same_command_without_a_flag(
    argv: list[str], again: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    @command("probe", examples=["edgeq probe"])
    @click.argument("bundle", type=click.Path(path_type=Path))
    @click.option("--to", "selectors", multiple=True)
    @click.option("--count", default=2)
    @click.option("--dry-run", is_flag=True)
    @click.option("--yes", is_flag=True)
    def probe(app: App, **_options: object) -> None:
        app.ui.quiet = False
        app.ui.again(without="dry_run")

    app = App(workspace=Path(), ui=Ui())
    probe.main(argv, prog_name="edgeq probe", obj=app, standalone_mode=False)
    assert capsys.readouterr().err == f"next: edgeq probe {again}\n"
