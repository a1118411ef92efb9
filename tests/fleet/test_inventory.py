"""The inventory: strict on the way in, gentle with what people wrote on the way out."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgeq.cli import main
from edgeq.errors import ConfigError, UnknownName, UsageError
from edgeq.fleet.inventory import Inventory
from edgeq.fleet.names import check_host, check_name
from edgeq.values import Device, DeviceKind, TransportKind

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
PI = Device(
    name="pi",
    host="192.168.1.20",
    user="pi",
    kind=DeviceKind.RASPBERRY_PI,
    labels={"site": "lab", "rack": "2"},
    host_key=KEY,
)


def test_no_file_is_an_empty_inventory(tmp_path: Path) -> None:
    assert Inventory.load(tmp_path).devices == ()


def test_what_is_added_is_read_back(tmp_path: Path) -> None:
    other = Device(
        name="cam.2",
        host="fe80::1%eth0",
        port=8022,
        user="u0_a1",
        kind=DeviceKind.ANDROID,
        host_key=KEY,
        identity=tmp_path / "key",
        python="/data/python3",
        home="/data/edgeq",
        jump="gate,me@door:2222",
        ssh_config=tmp_path / "ssh_config",
    )
    Inventory.load(tmp_path).add(PI).add(other)
    assert Inventory.load(tmp_path).devices == (PI, other)
    with pytest.raises(UsageError, match="enrolled already"):
        Inventory.load(tmp_path).add(PI)
    assert Inventory.load(tmp_path).remove("pi").devices == (other,)


def test_comments_and_order_survive_a_change(tmp_path: Path) -> None:
    Inventory.load(tmp_path).add(PI)
    path = tmp_path / "devices.toml"
    path.write_text(
        "# The lab's devices.\n\n" + path.read_text().replace('user = "pi"', 'user = "pi" # not root')
    )
    Inventory.load(tmp_path).add(dataclasses.replace(PI, name="b")).remove("b")
    text = path.read_text()
    assert text.startswith("# The lab's devices.")
    assert "# not root" in text


def test_two_that_add_at_once_both_stay(tmp_path: Path) -> None:
    devices = [dataclasses.replace(PI, name=f"pi-{number}") for number in range(12)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda device: Inventory.load(tmp_path).add(device), devices))
    assert set(Inventory.load(tmp_path).names) == {device.name for device in devices}


@pytest.mark.parametrize("kind", list(TransportKind))
def test_each_transport_is_read_back(tmp_path: Path, kind: TransportKind) -> None:
    Inventory.load(tmp_path).add(dataclasses.replace(PI, transport=kind))
    assert Inventory.load(tmp_path).get("pi").transport is kind


def test_selectors_choose_names_labels_and_all(tmp_path: Path) -> None:
    far = dataclasses.replace(PI, name="far", labels={"site": "roof"})
    inventory = Inventory.load(tmp_path).add(PI).add(far)
    assert inventory.select(["far", "pi", "far"]) == (PI, far)
    assert inventory.select(["label:site=roof"]) == (far,)
    assert inventory.select(["all"]) == (PI, far)
    with pytest.raises(UnknownName, match="did you mean 'far'"):
        inventory.select(["fra"])
    with pytest.raises(UnknownName, match="label:site=roof"):
        inventory.select(["label:site=rof"])
    with pytest.raises(UnknownName):
        Inventory.load(tmp_path / "empty").select(["all"])
    with pytest.raises(UnknownName) as caught:
        inventory.select(["site=roof"])
    assert caught.value.hint == "a label is selected by `label:site=roof`"
    for selection in ("all", "label:site=roof"):
        with pytest.raises(UsageError, match="expected the name of one device, got a selection"):
            inventory.get(selection)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[devices.pi]\nhots = 'a'\n", "did you mean 'host'"),
        ("[device.pi]\nhost = 'a'\n", "unknown key 'device'"),
        (
            "[devices.pi]\ntransport = 'adb'\nhost = 'R58M12ABCDE'\n",
            "adb is not supported",
        ),
        (
            f"[devices.pi]\nhost = 'a'\nuser = 'u'\ntransport = 'telnet'\nhost_key = '{KEY}'\n",
            "transport: expected one of paramiko, openssh",
        ),
        ("devices = 3\n", "not a table"),
        ("[devices]\npi = 3\n", "expected a table"),
        ("[devices.pi]\nhost = 3\n", "devices.pi.host: expected a string"),
        (f"[devices.pi]\nhost = 'a'\nhost_key = '{KEY}'\n", "devices.pi.user: is missing"),
        (f"[devices.pi]\nhost = 'a b'\nuser = 'u'\nhost_key = '{KEY}'\n", "host name"),
        ("[devices.pi]\nhost = 'a'\nuser = 'u'\nhost_key = 'x'\n", "host_key"),
        (f"[devices.pi]\nhost = 'a'\nuser = '-oProxy'\nhost_key = '{KEY}'\n", "leading dash"),
        (f"[devices.pi]\nhost = 'a'\nuser = 'u'\nport = 0\nhost_key = '{KEY}'\n", "1 to 65535"),
        (f"[devices.pi]\nhost = 'a'\nuser = 'u'\nport = true\nhost_key = '{KEY}'\n", "a number"),
        (f"[devices.pi]\nhost = 'a'\nuser = 'u'\nkind = 'toaster'\nhost_key = '{KEY}'\n", "raspberry-pi"),
        (f"[devices.pi]\nhost = 'a'\nuser = 'u'\nlabels = {{a = 1}}\nhost_key = '{KEY}'\n", "labels.a"),
        (
            f"[devices.pi]\nhost = 'a'\nuser = 'u'\nssh_config = 3\nhost_key = '{KEY}'\n",
            "true, false or a file",
        ),
        (f"[devices.pi]\nhost = 'a'\nuser = 'u'\njump = '-oX'\nhost_key = '{KEY}'\n", "leading dash"),
        ("[devices.pi\n", "not valid TOML"),
    ],
)
def test_a_mistake_names_its_file_and_its_key(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "devices.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"devices\.toml") as caught:
        Inventory.load(tmp_path)
    assert message in caught.value.message


def table(name: str, host: str = "a", more: str = "") -> str:
    key = json.dumps(name, ensure_ascii=False).replace("\x7f", "\\u007f")
    return f"[devices.{key}]\nhost = '{host}'\nuser = 'u'\nhost_key = '{KEY}'\n{more}"


UNUSABLE = (
    "all", "ALL", "label:site=lab", "label=site=lab", "", " ", "p i", "a\nb", "a\tb", "-a", ".", "..", "a/b",
    "k\u00fcche", "ku\u0308che", "\u202epi", "a" * 64, "p\u0131", "\x7f",
)  # fmt: skip


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_name_that_no_device_can_have_is_one_line_and_stops_no_other(tmp_path: Path, name: str) -> None:
    (tmp_path / "devices.toml").write_text(table("pi") + table(name, host="b") + table("far", host="c"))
    inventory = Inventory.load(tmp_path)
    assert inventory.names == ("pi", "far")
    assert inventory.select(["all"]) == inventory.devices
    (problem,) = inventory.problems
    assert (problem.name, problem.unused) == (name, True)
    assert "devices.toml" in problem.text
    assert problem.text.isprintable()
    assert Inventory.load(tmp_path).add(dataclasses.replace(PI, name="new")).names == ("pi", "far", "new")
    assert Inventory.load(tmp_path).remove(name).problems == ()


@given(st.text(st.characters(exclude_categories=("C", "Z")) | st.just(" "), max_size=70))
@settings(deadline=None, max_examples=60)
def test_a_table_with_any_name_stops_no_other(name: str) -> None:
    assume(name.isprintable() and name != "pi")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "devices.toml").write_text(table("pi") + table(name, host="b"), encoding="utf-8")
        inventory = Inventory.load(Path(folder))
    assert inventory.names == (("pi",) if inventory.problems else ("pi", name))


@pytest.mark.parametrize("same", ["device_id = 'd1'\n", ""])
def test_a_second_name_of_a_device_is_said(tmp_path: Path, same: str) -> None:
    first, far = table("pi", host="Gate", more=same), table("far", host="c", more="device_id = 'd2'\n")
    (tmp_path / "devices.toml").write_text(first + table("pi2", host="gate", more=same) + far)
    inventory = Inventory.load(tmp_path)
    assert inventory.names == ("pi", "pi2", "far")
    assert [(each.name, each.unused) for each in inventory.problems] == [("pi2", False)]
    assert f"it has the {'device_id' if same else 'address'} of 'pi'" in inventory.problems[0].text


def test_a_table_that_is_left_out_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "devices.toml").write_text(table("all"))
    with pytest.raises(UsageError, match="is left out"):
        Inventory.load(tmp_path).get("all")
    assert Inventory.load(tmp_path).add(PI).problems[0].name == "all"


def test_a_command_says_what_is_left_out_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "devices.toml").write_text(table("pi") + table("all", host="b"))
    assert main(["devices", "list"]) == 0
    shown = capsys.readouterr()
    assert "pi" in shown.out
    assert shown.err == (
        "warning: devices.toml: devices.'all' is left out: device name: 'all' selects all devices, so that "
        "no device can have it (choose another name)\n"
    )


def test_bytes_that_are_not_text(tmp_path: Path) -> None:
    (tmp_path / "devices.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        Inventory.load(tmp_path)


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "../a", "a" * 64, "ä", "a\n"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(UsageError):
        check_name(name)


@pytest.mark.parametrize("host", ["", "-oProxyCommand=x", "a b", "a;b", "$(a)"])
def test_hosts_that_are_none(host: str) -> None:
    with pytest.raises(UsageError):
        check_host(host)
