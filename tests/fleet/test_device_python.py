"""A device whose Python lacks modules of the standard library: the error names them."""

from __future__ import annotations

import ast
import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import edgeq_agent
from edgeq.errors import DeviceUnsupported
from edgeq.fleet.agent import bootstrap, combined_bootstrap
from edgeq.fleet.agent.bootstrap import AGENT_MODULES, START_MODULES, python_argv
from edgeq.fleet.agent.client import AgentClient
from edgeq.fleet.agent.upload import Content, upload
from edgeq.fleet.connect import open_agent
from edgeq.fleet.operations import status
from edgeq.fleet.transport import Ended
from edgeq.values import Device
from tests.fleet.servers import Server

# What a Python may be built or packaged without.
OPTIONAL = [
    "_sqlite3",
    "zlib",
    "fcntl",
    "select",
    "_socket",
    "_struct",
    "json",
    "hashlib",
    "uuid",
    "_ssl",
    "ssl",
    "_bz2",
    "_lzma",
    "_ctypes",
]
NOT_NEEDED = {"_ssl", "ssl", "_bz2", "_lzma", "_ctypes"}
# Modules that every Python has, or that only runs which need them import.
ALWAYS = {
    "__future__",
    "abc",
    "atexit",
    "collections",
    "functools",
    "importlib",
    "importlib.util",
    "io",
    "itertools",
    "re",
    "stat",
    "sys",
    "time",
    "traceback",
    "ctypes",
    "numpy",
}


Stripped = Callable[..., Device]


@pytest.fixture
def stripped(loopback_server: Server, tmp_path: Path) -> Stripped:
    """A function that returns a device whose Python lacks modules."""

    def made(*lacking: str, home: str = ".edgeq") -> Device:
        environment = tmp_path / "python"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
        (site,) = environment.glob("lib/python3*/site-packages")
        hook = (
            "import sys\n"
            "class Lacking:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            f"        if name in {lacking!r}:\n"
            "            raise ModuleNotFoundError('No module named %r' % name, name=name)\n"
            f"for name in {lacking!r}:\n"
            "    sys.modules.pop(name, None)\n"
            "sys.meta_path.insert(0, Lacking())\n"
        )
        (site / "lacking.py").write_text(hook)
        (site / "lacking.pth").write_text("import lacking\n")
        return dataclasses.replace(
            loopback_server.device(), python=str(environment / "bin" / "python3"), home=home
        )

    return made


@pytest.mark.first_is_quick
@pytest.mark.parametrize("name", OPTIONAL)
def test_a_python_without_a_module_names_it(stripped: Stripped, name: str, tmp_path: Path) -> None:
    device = stripped(name, home=f".edgeq-{tmp_path.name}")
    if name in NOT_NEEDED:
        assert status(device).models == {}
        return
    for attempt in (AgentClient.facts, lambda client: upload(client, [Content.from_source(b"x")])):
        with open_agent(device) as client, pytest.raises(DeviceUnsupported, match=f"lacks {name}") as caught:
            attempt(client)
        assert caught.value.reported_code == "EQ503"
        assert "\n" not in caught.value.message


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in OPTIONAL if name not in {*NOT_NEEDED, "_socket", "uuid"}])
def test_a_module_that_is_gone_after_the_enrolment_is_named_too(
    stripped: Stripped, loopback_server: Server, name: str, tmp_path: Path
) -> None:
    home = f".edgeq-gone-{tmp_path.name}"
    assert status(dataclasses.replace(loopback_server.device(), home=home)).models == {}
    device = stripped(name, home=home)
    with pytest.raises(DeviceUnsupported, match=f"lacks .*{name}"):
        status(device)
    with open_agent(device) as client, pytest.raises(DeviceUnsupported, match=f"lacks .*{name}"):
        upload(client, [Content.from_source(b"x")])


def test_several_modules_are_named_together(stripped: Stripped, tmp_path: Path) -> None:
    device = stripped("_sqlite3", "uuid", home=f".edgeq-{tmp_path.name}")
    with open_agent(device) as client, pytest.raises(DeviceUnsupported, match="lacks _sqlite3, uuid"):
        client.facts()


def test_every_module_that_the_agent_imports_is_checked() -> None:
    imported = set()
    for path in Path(edgeq_agent.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                imported.add(node.module)
    needed = {
        name
        for name in imported - ALWAYS
        if name.partition(".")[0] in sys.stdlib_module_names and name.partition(".")[0] not in ALWAYS
    }
    assert needed - {*START_MODULES, *AGENT_MODULES} == set()
    assert set(AGENT_MODULES) - needed == set()


@pytest.mark.parametrize("script", [bootstrap.SCRIPT, combined_bootstrap.SCRIPT])
def test_no_character_of_a_script_means_something_to_a_shell(script: str) -> None:
    words = python_argv(script, [], modules=START_MODULES)
    assert not set("".join(words)) & set("'\\!\n")


@pytest.mark.parametrize(
    ("stderr", "text"),
    [
        ("zipimport.ZipImportError: can't decompress data; zlib not available", "lacks zlib"),
        ("ModuleNotFoundError: No module named '_sqlite3'", "lacks _sqlite3"),
        ("ImportError: No module named json", "lacks json"),
        ("ImportError: libsqlite3.so.0: cannot open shared object file", "libsqlite3.so.0"),
    ],
)
def test_what_python_prints_of_a_module_becomes_the_error(
    loopback_server: Server, stderr: str, text: str
) -> None:
    ended = Ended(exit_status=1, stderr=f"Traceback\n{stderr}", sent_bytes=0)
    assert text in bootstrap.no_python(loopback_server.device(), ended).message
