"""Names and addresses of devices as users write them, and one device under two names."""

from __future__ import annotations

import dataclasses
import getpass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.errors import ConfigError, UsageError
from edgeq.fleet.address import Address, parse_address
from edgeq.fleet.enrol import enrol, login_address
from edgeq.fleet.inventory import Inventory
from edgeq.fleet.names import check_device_name
from edgeq.testing.emulation import folder_of
from tests.fleet.cli import Cli
from tests.fleet.servers import Server

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"


@pytest.mark.parametrize(
    ("text", "host", "port", "user"),
    [
        ("pi.local", "pi.local", None, None),
        (" pi.local ", "pi.local", None, None),
        ("192.168.1.20", "192.168.1.20", None, None),
        ("pi@host", "host", None, "pi"),
        ("host:22", "host", 22, None),
        ("pi@host:2222", "host", 2222, "pi"),
        ("ann@corp.example@host", "host", None, "ann@corp.example"),
        ("::1", "::1", None, None),
        ("[::1]", "::1", None, None),
        ("[::1]:8022", "::1", 8022, None),
        ("pi@[fe80::1%eth0]:22", "fe80::1%eth0", 22, "pi"),
        ("fe80::1%eth0", "fe80::1%eth0", None, None),
        ("ssh://host", "host", None, None),
        ("ssh://pi@host:22/", "host", 22, "pi"),
        ("SSH://pi@[fe80::1%25eth0]:22", "fe80::1%eth0", 22, "pi"),
        ("küche.example", "xn--kche-0ra.example", None, None),
        ("jörg@bücher.example:22", "xn--bcher-kva.example", 22, "jörg"),
    ],
)
def test_an_address_is_understood(text: str, host: str, port: int | None, user: str | None) -> None:
    assert parse_address(text) == Address(host=host, port=port, user=user)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@",
        "pi@",
        "@host",
        "host:",
        "host:0",
        "host:99999",
        "host:ssh",
        "host:22:33",
        "host:²",
        "[host]",
        "[::1",
        "[::1]22",
        "[::1]:",
        "::1]",
        "http://host",
        "ssh://",
        "ssh://host/path",
        "pi:secret@host",
        "-oProxyCommand=x",
        "-x@host",
        "a b",
        "a;b",
        "$(a)",
        "host\n",
        "ho\nst",
        "ssh://ssh://host",
        "ü" * 80,
        "host,other",
        "../x",
        "C:\\x",
    ],
)
def test_an_address_that_is_none_is_one_line(text: str, workspace: Path) -> None:
    if text == "host\n":  # blanks around it are allowed
        assert parse_address(text).host == "host"
        return
    with pytest.raises(UsageError) as caught:
        enrol(workspace, name="pi", host=text)
    assert "\n" not in caught.value.message
    assert "edgeq devices add" not in caught.value.hint


@pytest.mark.slow
@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_any_text_is_an_address_or_a_usage_error(text: str) -> None:
    try:
        address = parse_address(text)
    except UsageError:
        return
    assert address.host.isascii()
    assert "@" not in address.host
    assert parse_address(f"[{address.host}]" if ":" in address.host else address.host).host == address.host


@pytest.mark.parametrize(("port", "user"), [(23, None), (None, "ann"), (23, "ann")])
def test_two_values_for_one_part_are_refused(workspace: Path, port: int | None, user: str | None) -> None:
    with pytest.raises(UsageError, match="has another one, expected"):
        enrol(workspace, name="pi", host="pi@127.0.0.1:22", port=port, user=user)


@pytest.mark.parametrize("option", ["user", "python", "home"])
@pytest.mark.parametrize("text", ["", "-oProxyCommand=x", "a\nb", "\x1b[31m"])
def test_a_word_that_can_only_be_a_mistake_is_refused_before_anything_is_sent(
    workspace: Path, option: str, text: str
) -> None:
    if (option, text) == ("user", ""):
        return
    with pytest.raises(UsageError, match=f"--{option}"):
        enrol(workspace, name="pi", host="no-such-host.invalid", **{option: text})  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["pi@host", "host:22", "[::1]", "ssh://host", "küche", "[::1]:22", "::g"])
def test_devices_toml_names_the_settings_for_user_and_port(tmp_path: Path, host: str) -> None:
    (tmp_path / "devices.toml").write_text(
        f"[devices.pi]\nhost = '{host}'\nuser = 'u'\nhost_key = '{KEY}'\n", encoding="utf-8"
    )
    with pytest.raises(ConfigError, match=r"devices\.pi: host: expected .* without a user and a port"):
        Inventory.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("all", "selects all devices"),
        ("ALL", "selects all devices"),
        ("label:site=lab", "selects devices by a label"),
        ("label=site", "selects devices by a label"),
    ],
)
def test_a_name_that_selects_devices_is_refused(workspace: Path, name: str, text: str) -> None:
    for attempt in (
        lambda: enrol(workspace, name=name, host="127.0.0.1"),
        lambda: folder_of(workspace, name),
    ):
        with pytest.raises(UsageError, match=text):
            attempt()
    assert not (workspace / "devices.toml").exists()


@pytest.mark.parametrize(
    ("name", "suggested"),
    [
        ("küche", "'kueche'"),
        ("Straße 7", "'Strasse-7'"),
        ("café", "'cafe'"),
        ("-pi", "'pi'"),
        ("a/b", "'a-b'"),
    ],
)
def test_a_name_with_other_letters_gets_a_suggestion(name: str, suggested: str) -> None:
    with pytest.raises(UsageError, match="letters a to z") as caught:
        check_device_name(name)
    assert suggested in caught.value.hint


def test_one_device_under_two_names_is_said_at_enrolment(loopback_server: Server, site: Path) -> None:
    device = loopback_server.enrol(site, "pi")
    assert device.device_id
    with pytest.raises(UsageError, match="is enrolled already as 'pi'") as caught:
        loopback_server.enrol(site, "kitchen")
    assert device.device_id in caught.value.message
    assert "edgeq devices remove pi" in caught.value.hint
    assert Inventory.load(site).devices == (device,)
    with pytest.raises(UsageError, match="enrolled already as 'pi'"):
        Inventory.load(site).add(dataclasses.replace(device, name="kitchen"))
    with pytest.raises(UsageError, match="enrolled already as 'pi'"):
        Inventory.load(site).replace(dataclasses.replace(device, name="kitchen"))
    assert loopback_server.enrol(site, "pi", replace=True) == device, "the same name again"
    other = loopback_server.enrol(site, "second", home=".edgeq-second")
    assert other.device_id != device.device_id, "an agent of its own"
    Inventory.load(site).remove("pi")
    assert loopback_server.enrol(site, "kitchen").name == "kitchen", "renamed"


@pytest.mark.slow
def test_an_entry_without_an_id_is_compared_too(loopback_server: Server, site: Path) -> None:
    device = loopback_server.enrol(site, "pi")
    Inventory.load(site).replace(dataclasses.replace(device, device_id=None))
    assert "device_id" not in (site / "devices.toml").read_text()
    with pytest.raises(UsageError, match="is enrolled already as 'pi'"):
        loopback_server.enrol(site, "kitchen")


def test_the_command_understands_an_address(
    loopback_server: Server, site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = Cli(capsys)
    address = f"ssh://{loopback_server.user}@{loopback_server.host}:{loopback_server.port}"
    done = cli.json("devices", "add", "pi", "--host", address, "--identity", str(loopback_server.identity))
    assert (done["device"]["host"], done["device"]["port"]) == (loopback_server.host, loopback_server.port)
    assert Inventory.load(site).get("pi").user == loopback_server.user


def test_without_a_user_it_is_the_one_of_this_machine() -> None:
    assert login_address("host", port=None, user=None).user == getpass.getuser()
