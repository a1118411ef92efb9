"""Android: known without reading its properties; Termux's folder, C library and boot script."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from edgeq_agent.platforms.android import Android
from edgeq_agent.platforms.base import PLAIN, TERMUX_BOOT
from edgeq_agent.platforms.registry import DeviceKind, kind_of, platform_of

Tree = Callable[[Mapping[str, str]], str]


@pytest.mark.parametrize("name", ["build.prop", "bin/app_process", "bin/app_process64", "bin/app_process32"])
def test_a_phone_is_known_by_any_of_its_system_files(tree: Tree, name: str) -> None:
    assert kind_of(tree({})) is DeviceKind.LINUX
    assert kind_of(tree({"system/" + name: ""})) is DeviceKind.ANDROID


def test_termux_is_known_by_its_python(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", "/data/data/com.termux/files/usr")
    assert kind_of(tree({})) is DeviceKind.ANDROID


def test_the_battery_gauge_measures_energy(tree: Tree) -> None:
    battery = "sys/class/power_supply/battery"
    phone = platform_of(
        tree(
            {
                "system/build.prop": "",
                f"{battery}/current_now": "-350000",
                f"{battery}/voltage_now": "4012000",
            }
        )
    )
    assert phone.energy_source().value == f"/{battery}/current_now and voltage_now (hw_sampled)"


def test_the_prefix_is_termuxs_where_its_shell_is(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = tmp_path / "files/usr"
    monkeypatch.setenv("PREFIX", str(prefix))
    phone = Android(tree({"system/build.prop": "", "files/usr/bin/sh": ""}))
    assert phone.app_prefix() is None, "a shell that cannot be executed does not count"
    (prefix / "bin/sh").chmod(0o755)
    assert phone.app_prefix() == str(prefix)
    assert phone.library_folders()[0] == os.path.join(str(prefix).lstrip("/"), "lib")
    assert phone.autostart_kinds() == (TERMUX_BOOT, PLAIN)


def test_the_c_library_is_bionic_where_none_reports_a_version(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    phone = Android(tree({}))
    monkeypatch.setattr(os, "confstr", lambda name: "glibc 2.36")
    assert phone.libc() == ("glibc", "2.36")
    monkeypatch.setattr(os, "confstr", lambda name: None)
    assert phone.libc() == ("bionic", None)
