"""Files of hosts: what each format says, and that any other file is one line for each thing that is wrong."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeq.errors import ConfigError, UnknownName
from edgeq.fleet.hosts.ansible import expanded
from edgeq.fleet.hosts.enrol_hosts import Action, Defaults, plan_import
from edgeq.fleet.hosts.entry import HostEntry, HostFile
from edgeq.fleet.hosts.read import HostFormat, read_hosts
from edgeq.values import Device, DeviceKind, TransportKind

INI = """
# comment
solo ansible_host=10.0.0.1 ansible_user=ann   # at the end
[cams]
cam[01:03].lab ansible_port=2222
"quoted" ansible_host=10.0.0.9 ansible_ssh_private_key_file=keys/cam
[cams:vars]
ansible_user = pi
ansible_python_interpreter=/usr/bin/python3.9
[gates]
gate-[a:b]
[site:children]
cams
gates
[site:vars]
ansible_user=site
ansible_ssh_common_args='-o ProxyJump=ops@bastion:2200 -o StrictHostKeyChecking=no'
[all:vars]
ansible_python_interpreter=auto_silent
"""
YAML = """
all:
  vars: &defaults {ansible_user: pi, ansible_port: 2222}
  hosts:
    solo:
  children:
    cams:
      hosts:
        cam[1:2]:
          ansible_host: 10.0.0.5
        odd:
          <<: *defaults
          ansible_host: 10.0.0.6
          ansible_user: no
      vars:
        ansible_ssh_common_args: -o ProxyCommand="ssh -W %h:%p -p 2200 ops@bastion"
    gates: {hosts: {gate: {ansible_host: "[fe80::1]:22", tags: [a, b]}}}
"""
SSH = """
Include more
Host pi-1 pi-2
  HostName 10.0.0.1
  User ann
  Port 2222
Host pi-2
  ProxyJump ops@bastion
Host *.lab !x
  User other
Host old
  ProxyCommand nc %h %p
Host pi-*
  IdentityFile ~/.ssh/none
Match exec "false"
  User exec
"""


def read(folder: Path, name: str, text: str | bytes, *patterns: str) -> HostFile:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_hosts(str(path), patterns)[0]


def by_name(hosts: HostFile) -> dict[str, HostEntry]:
    return {entry.name: entry for entry in hosts.entries}


def problems(hosts: HostFile) -> list[str]:
    for bad in hosts.bad:
        assert "\n" not in bad.error.message
    return [f"{bad.where} {bad.error.message.removeprefix(bad.where)}" for bad in hosts.bad]


def test_a_csv_file_says_what_devices_add_takes(tmp_path: Path) -> None:
    hosts = read(
        tmp_path,
        "hosts.csv",
        "\ufeffName;Host;Port;user;Kind;labels;site;key file;jump;transport\n"
        "# comment\n"
        "\n"
        "a; 10.0.0.1 ;2222;pi;Raspberry_Pi;room=1,line=2;lab;keys/a;gate;openssh\n"
        ';"pi@b.lab:2200";;;;;;;;\n'
        "küche;küche.example;;;;;;;;\n"
        "c;10.0.0.3\n",
    )
    a, b = hosts.entries[0], hosts.entries[1]
    assert (a.name, a.host, a.port, a.user, a.kind) == ("a", "10.0.0.1", 2222, "pi", DeviceKind.RASPBERRY_PI)
    assert a.labels == {"room": "1", "line": "2", "site": "lab"}
    assert (a.identity, a.jump, a.transport) == (tmp_path / "keys/a", "gate", TransportKind.OPENSSH)
    assert (b.name, b.host, b.labels) == ("b.lab", "pi@b.lab:2200", {})
    assert [entry.name for entry in hosts.entries] == ["a", "b.lab", "c"]
    assert len(hosts.bad) == 1
    assert hosts.bad[0].where == "hosts.csv:6"  # a name needs plain letters
    assert hosts.notes == ("columns that become labels: site",)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('"a,10.0.0.1,22', "not a line of a CSV file"),
        ("a,10.0.0.1,22,x,y", "expected 3 cells, got 5"),
        ("a,10.0.0.1,ssh", "port: expected 1 to 65535, got 'ssh'"),
        ("a,10.0.0.1,0", "port: expected 1 to 65535"),
        ("a,10.0.0.1:99999,", "host: expected a port from 1 to 65535"),
        ("a,pi:secret@10.0.0.1,", "host: has a password in it"),
        ("all,10.0.0.1,", "'all' selects all devices"),
        ("a b,10.0.0.1,", "device name: expected letters"),
        ("a,-oProxyCommand=x,", "host: expected"),
        ("a,$(touch x),", "host: expected"),
        ("a,\x1b[2J,", "host: expected"),
        ("a,\0,", "host: expected"),
        (",,22", "names no host"),
        (b"a,k\xfcche.lab,", "host: expected UTF-8 text"),
        ("a," + "x" * 200_000 + ",", "not a line of a CSV file"),
    ],
)
def test_a_bad_line_is_a_line_and_the_others_go_on(tmp_path: Path, line: str | bytes, problem: str) -> None:
    raw = line.encode() if isinstance(line, str) else line
    hosts = read(tmp_path, "hosts.csv", b"name,host,port\nx,10.0.0.8,\n" + raw + b"\ny,10.0.0.9,\n")
    assert [entry.name for entry in hosts.entries] == ["x", "y"]
    assert len(hosts.bad) == 1
    assert hosts.bad[0].where == "hosts.csv:3"
    assert problem in hosts.bad[0].error.message


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ("a,10.0.0.1", "the names of the columns"),
        ("name,hots", "'hots' is not known; did you mean 'host'"),
        ("host,address", "two columns are the host"),
        ("host,nämé", "column: expected letters"),
    ],
)
def test_a_first_line_that_does_not_name_the_columns_refuses_the_file(
    tmp_path: Path, header: str, problem: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, "hosts.csv", f"{header}\na,10.0.0.1\n")
    assert problem in caught.value.message


def test_a_secret_of_a_csv_file_becomes_no_label(tmp_path: Path) -> None:
    hosts = read(tmp_path, "hosts.csv", "host,Password,api token\n10.0.0.1,hunter2,t0k\n")
    assert hosts.entries[0].labels == {}
    assert len(hosts.notes) == 2
    assert "hunter2" not in repr(hosts)


def test_an_ini_inventory(tmp_path: Path) -> None:
    hosts = read(tmp_path, "inventory", INI)
    assert hosts.bad == ()
    entries = by_name(hosts)
    assert list(entries) == [
        "solo", "cam01.lab", "cam02.lab", "cam03.lab", "quoted", "gate-a", "gate-b"
    ]  # fmt: skip
    solo, cam, gate = entries["solo"], entries["cam02.lab"], entries["gate-b"]
    assert (solo.host, solo.user, solo.labels, solo.jump, solo.python) == ("10.0.0.1", "ann", {}, None, None)
    assert (cam.host, cam.port, cam.user, cam.jump) == ("cam02.lab", 2222, "pi", "ops@bastion:2200")
    assert cam.labels == {"cams": "yes", "site": "yes", "group": "cams"}
    assert cam.python == "/usr/bin/python3.9"
    assert (gate.user, gate.labels["group"]) == ("site", "gates")
    assert entries["quoted"].identity == tmp_path / "keys/cam"


def test_a_yaml_inventory(tmp_path: Path) -> None:
    hosts = read(tmp_path, "inventory.yml", YAML)
    assert hosts.bad == ()
    entries = by_name(hosts)
    assert list(entries) == ["solo", "cam1", "cam2", "odd", "gate"]
    assert (entries["solo"].user, entries["solo"].port, entries["solo"].labels) == ("pi", 2222, {})
    assert (entries["cam1"].host, entries["cam1"].jump) == ("10.0.0.5", "ops@bastion:2200")
    assert (entries["odd"].host, entries["odd"].user) == ("10.0.0.6", "no")
    assert entries["gate"].labels == {"gates": "yes", "group": "gates"}


def beside(folder: Path, **texts: str) -> None:
    """Write files of variables; `__` in a name is `/`."""
    for name, text in texts.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "hosts.ini",
            "[cams]\ncam1\ncam2 ansible_port=4\n[cams:vars]\nansible_user=x\nansible_port=1\n",
        ),
        ("hosts.yml", "cams: {hosts: {cam1: , cam2: {ansible_port: 4}}, vars: {ansible_user: in-file}}\n"),
        ("hosts.json", '{"cams": {"hosts": {"cam1": null, "cam2": {"ansible_port": 4}}}}'),
    ],
)
def test_variables_beside_an_inventory_are_read_in_ansibles_order(
    tmp_path: Path, name: str, text: str
) -> None:
    beside(
        tmp_path,
        group_vars__all="ansible_user: everyone\nansible_port: 2\nansible_ssh_private_key_file: keys/all\n",
        group_vars__cams__a="ansible_user: first\nlist: [1, 2]\nmap: {a: 1}\n",
        group_vars__cams__b="ansible_user: second\n",
        group_vars__other="ansible_user: unused\n",
        host_vars__cam1="---\nansible_host: 10.0.0.1\n",
        host_vars__cam2="ansible_host: 10.0.0.2\nansible_port: 5\n",
    )
    (tmp_path / "host_vars" / "cam1").rename(tmp_path / "host_vars" / "cam1.yml")
    (tmp_path / "host_vars" / "cam2").write_text('{"ansible_host": "10.0.0.2", "ansible_port": 5}')
    (tmp_path / "host_vars" / "cam2").rename(tmp_path / "host_vars" / "cam2.json")
    hosts = read(tmp_path, name, text)
    assert (hosts.bad, hosts.notes) == ((), ())
    one, two = by_name(hosts)["cam1"], by_name(hosts)["cam2"]
    assert (one.host, one.port, one.user) == ("10.0.0.1", 2, "second")
    assert (two.host, two.port, two.user) == ("10.0.0.2", 5, "second")
    assert one.identity == tmp_path / "keys/all"


def test_what_cannot_be_read_beside_an_inventory_is_one_line_and_the_hosts_go_on(tmp_path: Path) -> None:
    beside(
        tmp_path,
        group_vars__all="$ANSIBLE_VAULT;1.1;AES256\n6162\n",
        group_vars__cams="ansible_user: pi\nansible_port: !vault |\n  6162\n",
        group_vars__bad="ansible_user: [\n",
        group_vars__list="- a\n",
        host_vars__secret="ansible_host: '{{ x }}'\n",
    )
    text = "[cams]\ncam1 ansible_port=22\nother\n[bad]\nb1\nb2\n[list]\nl1\n[plain]\nsecret\n"
    hosts = read(tmp_path, "hosts.ini", text)
    assert hosts.notes == ("group_vars/all is not read: it is encrypted by ansible-vault",)
    assert set(by_name(hosts)) == {"cam1", "b1", "b2", "l1"}
    assert by_name(hosts)["cam1"].user == "pi"
    assert [(each.name, each.where) for each in hosts.bad if not each.name] == [
        ("", "group_vars/bad"), ("", "group_vars/list"),
    ]  # fmt: skip
    assert {each.name for each in hosts.bad if each.name} == {"other", "secret"}


def test_a_group_or_host_named_like_a_path_reads_nothing_elsewhere(tmp_path: Path) -> None:
    beside(tmp_path, outside="ansible_user: root\n", inventory__group_vars__x="a: 1\n")
    text = "[../../outside]\n../../outside ansible_host=10.0.0.1\n..\n" + "x" * 300 + "\n"
    hosts = read(tmp_path / "inventory", "hosts.ini", text)
    assert all(each.user is None for each in hosts.entries)


def test_the_list_of_ansible_inventory(tmp_path: Path) -> None:
    hosts = read(
        tmp_path,
        "list.json",
        '{"_meta": {"hostvars": {"a": {"ansible_host": "10.0.0.1", "ansible_port": 22}}},'
        '"all": {"children": ["ungrouped", "cams"]}, "cams": {"hosts": ["a", "b"]}}',
    )
    assert {entry.name: (entry.host, entry.port) for entry in hosts.entries} == {
        "a": ("10.0.0.1", 22),
        "b": ("b", None),
    }
    assert hosts.entries[0].labels == {"cams": "yes", "group": "cams"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[a]\nx ansible_host\ny", "expected VARIABLE=VALUE"),
        ("[a]\nx ansible_host='1\ny", "cannot be parsed"),
        ("[a:b]\nx\n[a]\ny", "expected [GROUP], [GROUP:vars] or [GROUP:children]"),
        ("[a]\nx ansible_host='{{ ip }}'\ny", "only Ansible can compute it"),
        ("[a]\nx ansible_connection=local\ny", "expected ssh"),
        ("[a]\nx ansible_port=ssh\ny", "expected 1 to 65535"),
        ("[a]\nx[1:99999999]\ny", "expected a range of 1 to 10000"),
        ("[a]\nx[9:1]\ny", "expected a range"),
        ("[a]\nx ansible_ssh_common_args='-o ProxyCommand=\"nc %h %p\"'\ny", "a ProxyCommand"),
        ("[a]\n\x1b[2J\ny", "expected"),
        ("[a:children]\nb\n[b:children]\na\n[b]\ny", "is its own parent"),
        ("all: {hosts: {x: {ansible_user: !vault abc}, y: }}", "only Ansible can compute it"),
        ("all: {hosts: {x: [1], y: }}", "expected variables by name, got a sequence"),
        ("all: {hosts: {? [1] : , y: }}", "expected a name, got a sequence"),
        ("all: {host: {x: }}\ngood: {hosts: {y: }}", "one of hosts, children, vars"),
        ("all: {children: {a: 5}}\ngood: {hosts: {y: }}", "expected a group"),
    ],
)
def test_a_bad_part_of_an_inventory_is_a_line_and_the_others_go_on(
    tmp_path: Path, text: str, problem: str
) -> None:
    hosts = read(tmp_path, "hosts.ini" if text.startswith("[") else "hosts.yml", text)
    assert problem in " ".join(problems(hosts))
    if "? [1]" not in text:  # a mapping with such a key has no order to go on with
        assert "y" in by_name(hosts)


@pytest.mark.first_is_quick
@pytest.mark.parametrize(
    "text",
    [
        "a: [unclosed",
        "a: &a {children: {b: *a}}",
        "- a\n- b",
        "5",
        "a: 1\n---\nb: 2",
        "[" * 1000,
        "{a: " * 1000,
        "".join(f"a{n}: &a{n} {{children: {{{', '.join(f'g{n}x{m}: *a{n - 1}' for m in range(9))}}}}}\n"
                for n in range(1, 12)).replace("*a0", "{}"),
    ],
)  # fmt: skip
def test_a_yaml_file_without_an_inventory_is_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, "hosts.yml", text)
    assert "\n" not in caught.value.message
    assert "hosts.yml" in caught.value.message


def test_a_pattern_without_an_ssh_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=r"pi-\*: no such file, and there is no ~/\.ssh/config with hosts"):
        read_hosts("pi-*")


def test_an_ssh_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    ssh = tmp_path / ".ssh"
    ssh.mkdir()
    (ssh / "key").touch()
    (ssh / "more").write_text(f"Host in\n  IdentityFile {ssh}/key\n")
    hosts = read(ssh, "config", SSH)
    entries = by_name(hosts)
    assert list(entries) == ["in", "pi-1", "pi-2"]
    one, two = entries["pi-1"], entries["pi-2"]
    assert (one.host, one.port, one.user, one.jump, one.ssh_config) == ("pi-1", 2222, "ann", None, True)
    assert two.jump == "ops@bastion"
    assert entries["in"].identity == ssh / "key"
    assert one.notes == (f"its IdentityFile {ssh}/none does not exist",)
    assert "ProxyCommand" in " ".join(problems(hosts))
    assert hosts.notes == ('`Match exec "false"` is not evaluated',)
    # A pattern alone is one of ~/.ssh/config, and so is the name of a host there.
    for pattern, names in (("pi-*", ["pi-1", "pi-2"]), ("in", ["in"])):
        assert list(by_name(read_hosts(pattern)[0])) == names
    other = read(tmp_path, "lab.conf", "Host a\n  User b\n  Port 2222\n")
    assert other.entries[0].ssh_config == tmp_path / "lab.conf"


@pytest.mark.parametrize(
    ("name", "text", "format"),
    [
        ("hosts", INI, HostFormat.ANSIBLE_INI),
        ("hosts", "x ansible_host=1.2.3.4\n", HostFormat.ANSIBLE_INI),
        ("hosts", YAML, HostFormat.ANSIBLE_YAML),
        ("hosts", "---\nall:\n  hosts: {a: }\n", HostFormat.ANSIBLE_YAML),
        ("hosts", "name,host\na,b\n", HostFormat.CSV),
        ("hosts.txt", "host name;host\na;b\n".replace("host name", "name"), HostFormat.CSV),
        ("hosts", "Compression yes\nHost a\n  User b\n", HostFormat.SSH_CONFIG),
        ("list.json", '{"a": {"hosts": ["b"]}}', HostFormat.ANSIBLE_YAML),
    ],
)
def test_the_format_is_detected(tmp_path: Path, name: str, text: str, format: HostFormat) -> None:
    (tmp_path / name).write_text(text)
    hosts, detected = read_hosts(str(tmp_path / name))
    assert detected is format
    assert hosts.entries


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("none.csv", None, "no such file"),
        ("hosts", b"hello\nworld\n", "expected hosts as CSV"),
        ("hosts", b"", "got no host"),
        ("hosts.csv", b"name,host\n", "names no host"),
        ("inventory", b"#!/usr/bin/env python3\n", "a program; edgeq runs none"),
    ],
)
def test_a_file_without_hosts_is_one_line(
    tmp_path: Path, name: str, data: bytes | None, problem: str
) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        read_hosts(str(tmp_path / name))
    assert problem in caught.value.message


def test_patterns_choose_and_one_that_matches_nothing_names_what_is_there(tmp_path: Path) -> None:
    text = "name,host\npi-1,a\npi-2,b\nx,c\npi-3,bad host\n"
    hosts = read(tmp_path, "hosts.csv", text, "pi-*")
    assert [entry.name for entry in hosts.entries] == ["pi-1", "pi-2"]
    assert [bad.name for bad in hosts.bad] == ["pi-3"]
    with pytest.raises(UnknownName) as caught:
        read(tmp_path, "hosts.csv", text, "pj-1")
    assert "pi-1" in caught.value.message + caught.value.hint


def test_duplicates_and_present_devices_are_known_by_address(tmp_path: Path) -> None:
    hosts = read(
        tmp_path,
        "hosts.csv",
        "name,host,port,user\n"
        "new,10.0.0.1,,pi\n"
        "again,PI@10.0.0.1:22,,\n"
        "again2,pi@10.0.0.1:22,,\n"
        "here,10.0.0.2,,pi\n"
        "there,10.0.0.2,,pi\n"
        "gone,10.0.0.9,,pi\n"
        "new,10.0.0.7,,pi\n"
        "new,10.0.0.1,,pi\n"
        "clash,ann@10.0.0.8,,pi\n",
    )
    devices = [
        Device(name="here", host="10.0.0.2", user="pi", host_key=""),
        Device(name="gone", host="10.0.0.3", user="pi", host_key=""),
    ]
    plan = plan_import(hosts, devices, Defaults(user="root"))
    assert [(one.entry.name, one.action) for one in plan.planned] == [
        ("new", Action.ENROL),
        ("again", Action.ENROL),  # another user has another home
        ("again2", Action.DUPLICATE),
        ("here", Action.PRESENT),
        ("there", Action.DUPLICATE),
        ("new", Action.DUPLICATE),
    ]
    assert plan.planned[2].because == "has the address of new in hosts.csv:2, pi@10.0.0.1:22"
    assert plan.planned[4].because == "has the address of the device here, pi@10.0.0.2:22"
    assert [(bad.where, bad.name) for bad in plan.bad] == [
        ("hosts.csv:7", "gone"),
        ("hosts.csv:8", "new"),
        ("hosts.csv:10", "clash"),
    ]


def test_ranges() -> None:
    assert expanded("a[08:10:2]-[x:y].b", "f:1") == ["a08-x.b", "a08-y.b", "a10-x.b", "a10-y.b"]
    assert expanded("[::1]", "f:1") == ["[::1]"]


LINES = st.lists(
    st.one_of(
        st.sampled_from([*INI.splitlines(), *YAML.splitlines(), *SSH.splitlines(), "name,host", "a,b,c"]),
        st.text(max_size=30),
    ),
    max_size=12,
)


@pytest.mark.parametrize("format", [one for one in HostFormat if one is not HostFormat.SSH_CONFIG])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=LINES)
def test_any_file_gives_hosts_or_one_line_for_each_problem(
    tmp_path: Path, format: HostFormat, lines: list[str]
) -> None:
    path = tmp_path / "hosts"
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    try:
        hosts, _ = read_hosts(str(path), format=format)
    except ConfigError as error:
        refusal = error.message
    else:
        refusal = " ".join(problems(hosts))
        plan = plan_import(hosts, [], Defaults())
        assert len({one.entry.name for one in plan.new}) == len(plan.new)
    assert "\n" not in refusal


def test_the_product_of_two_ranges_is_limited_before_it_is_written_out(tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.ini"
    inventory.write_text("[gw]\npi[1:9999][1:9999][1:9999]\nother[01:03]\n")
    tracemalloc.start()
    read, _ = read_hosts(str(inventory))
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()
    assert [entry.name for entry in read.entries] == ["other01", "other02", "other03"]
    assert "names too many hosts" in str(read.bad[0].error)
