"""Imports stay lean: which modules a package or a command loads, seen in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"numpy", "tensorflow", "keras", "paramiko", "sqlalchemy", "pydantic", "plotly", "rich", "click"}


def modules_of(statement: str) -> set[str]:
    script = (
        f"import sys; before = set(sys.modules)\n{statement}\nprint('\\n'.join(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    return set(done.stdout.split())


def imported_by(statement: str) -> set[str]:
    return {name.partition(".")[0] for name in modules_of(statement)}


@pytest.mark.parametrize("statement", ["import edgeq", "import edgeq_converters", "import edgeq_agent"])
def test_a_package_alone_loads_nothing_heavy(statement: str) -> None:
    assert not imported_by(statement) & HEAVY


@pytest.mark.parametrize("module", ["edgeq_agent", "edgeq_agent.wire", "edgeq_agent.__main__"])
def test_the_agent_loads_only_itself_and_the_standard_library(module: str) -> None:
    strangers = imported_by(f"import {module}") - set(sys.stdlib_module_names) - {"edgeq_agent"}
    assert not strangers


def test_a_probe_loads_nothing_that_runs_models() -> None:
    # The device compiles each module again for every call: the agent file has no bytecode.
    modules = modules_of(
        "from edgeq_agent import __main__, verbs; from edgeq_agent.activation import states\n"
        "verbs.load('probe')"
    )
    running = ("edgeq_agent.inference", "edgeq_agent.runtimes.native", "edgeq_agent.runtimes.python")
    assert not [name for name in modules if name.startswith(running)]


HELP = """
import io
out, sys.stdout = sys.stdout, io.StringIO()
from edgeq.cli import main
main(["--help"])
sys.stdout = out
"""


def test_help_loads_the_table_of_commands_and_click_alone() -> None:
    # How long it takes is a figure of benchmarks/cli_help.py; here is what would make it slow.
    modules = modules_of(HELP)
    assert {name for name in modules if name.partition(".")[0] == "edgeq"} == {
        "edgeq",
        "edgeq.cli",
        "edgeq.cli.boundary",
        "edgeq.cli.root",
        "edgeq.cli.global_options",
        "edgeq.cli.streams",
        "edgeq.errors",
        "edgeq.command_line",
        "edgeq.version",
    }
    foreign = {name.partition(".")[0] for name in modules} - set(sys.stdlib_module_names)
    assert foreign == {"edgeq", "click"}


def test_the_guard_sees_what_is_loaded() -> None:
    assert "numpy" in imported_by("import numpy")
