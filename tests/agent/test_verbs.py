"""The table of verbs: every verb has a function, and those that recover their model are marked."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from edgeq_agent import verbs, wire

RECOVERY = "edgeq_agent.activation.recovery"
# They change which release serves or stays, so they hold the lock and fail when recovery fails.
KNOWN = {
    "activate", "rollback", "soak", "recover", "pin", "unpin", "stage", "unstage", "split", "prune",
}  # fmt: skip


@pytest.mark.parametrize("name", wire.VERBS)
def test_every_verb_has_a_documented_function(name: str) -> None:
    verb = verbs.load(name)
    assert callable(verb)
    assert verb.__doc__


def file_of(module: str) -> Path:
    """Return the file of a module of the agent."""
    return (Path(verbs.__file__).parents[2] / module.replace(".", "/")).with_suffix(".py")


class Module:
    """The functions of a module of the agent, and what the names mean that it imports."""

    def __init__(self, name: str) -> None:
        tree = ast.parse(file_of(name).read_text("utf-8"))
        self.name = name
        self.functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        self.imports = {
            alias.asname or alias.name: f"{node.module}.{alias.name}"
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("edgeq_agent")
            for alias in node.names
        }

    def called(self, function: str) -> Iterator[tuple[str, str]]:
        """Yield (module, function) of each call in a function that leads to a function of the agent."""
        for node in ast.walk(self.functions[function]):
            target = node.func if isinstance(node, ast.Call) else None
            if isinstance(target, ast.Name) and target.id in self.functions:
                yield self.name, target.id
            elif isinstance(target, ast.Name) and target.id in self.imports:
                module, _, name = self.imports[target.id].rpartition(".")
                yield module, name
            elif isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name):
                yield self.imports.get(target.value.id, ""), target.attr


@cache
def parsed_module(name: str) -> Module:
    """Return a module of the agent, parsed once."""
    return Module(name)


def recovers(module: str, function: str) -> bool:
    """Return whether a function of the agent calls the recovery of models, itself or through others."""
    waiting = [(module, function)]
    seen: set[tuple[str, str]] = set()
    while waiting:
        at = waiting.pop()
        if at[0] == RECOVERY and at[1].startswith("recover"):
            return True
        if at in seen or not file_of(at[0]).is_file():
            continue
        seen.add(at)
        parsed = parsed_module(at[0])
        if at[1] in parsed.functions:
            waiting.extend(parsed.called(at[1]))
    return False


def test_the_verbs_that_recover_their_model_themselves_are_marked() -> None:
    marked = {name for name in wire.VERBS if not verbs.needs_recovery(verbs.load(name))}
    functions = {name: where.partition(".") for name, where in wire.VERBS.items()}
    recovering = {
        name
        for name, (module, _, function) in functions.items()
        if recovers(f"edgeq_agent.verbs.{module}", function)
    }
    assert marked == recovering
    assert marked >= KNOWN
