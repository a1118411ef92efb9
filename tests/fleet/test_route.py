"""The route to a device: `~/.ssh/config` with its includes, jumps with known host keys, certificates."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import pytest

from edgeq.errors import (
    AuthenticationFailed,
    ConfigError,
    HostKeyMismatch,
    HostKeyRevoked,
    HostKeyUnknown,
    Unreachable,
    UsageError,
)
from edgeq.fleet.connect import open_transport
from edgeq.fleet.enrol import rotate_key
from edgeq.fleet.inventory import Inventory
from edgeq.fleet.ssh.config import load
from edgeq.fleet.ssh.hostkeys import HostKey
from edgeq.fleet.ssh.known_hosts import check_known, known_keys
from edgeq.fleet.ssh.route import resolve_route
from edgeq.fleet.ssh.transport import connect
from edgeq.fleet.transport import Limits
from edgeq.testing.loopback import loopback_device
from edgeq.values import TransportKind
from tests.fleet.servers import Server, enrol_at

LIMITS = Limits(first_s=10, silence_s=10, total_s=30)
BOTH = pytest.mark.parametrize("transport", list(TransportKind))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with an empty `.ssh`."""
    (tmp_path / ".ssh").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def write(home: Path, text: str, name: str = "config") -> Path:
    path = home / ".ssh" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_what_openssh_says_of_a_host_is_what_we_say(home: Path) -> None:
    write(home, "IdentityFile ~/.shared\n", "all.conf")
    write(home, "Host pi*\n  HostName 10.0.0.7\n  Port 2222\nHost *\n  User late\n", "pis.conf")
    path = write(
        home,
        "Include all.conf pis.conf none-*.conf\nHost gate\n  HostName gate.example\n  User door\n"
        "  IdentitiesOnly yes\nHost pi-4\n  ProxyJump gate\nMatch host 10.0.0.7 user late\n  Port 9\n",
    )
    (home / ".shared").write_text("x")
    config = load(path)
    for name in ("pi-4", "gate", "other", "pilot"):
        ours = config.lookup(name)
        output = subprocess.run(
            ["ssh", "-G", "-F", str(path), name], capture_output=True, text=True, check=True
        ).stdout
        theirs = dict(line.split(" ", 1) for line in reversed(output.splitlines()) if " " in line)
        assert ours.host == theirs["hostname"], name
        assert (ours.port or 22) == int(theirs["port"]), name
        assert ours.jump == theirs.get("proxyjump"), name
        assert ours.identities_only == (theirs["identitiesonly"] == "yes"), name
        if ours.user is not None:
            assert ours.user == theirs["user"], name
    assert config.lookup("pi-4").identities == (home / ".shared",)


def test_nothing_of_a_configuration_is_executed(home: Path) -> None:
    path = write(
        home,
        f'Match exec "touch {home}/executed"\n  Port 1\nMatch host pi exec true\n  Port 2\n'
        "Host pi\n  Port 3\n",
    )
    config = load(path)
    assert config.lookup("pi").port == 3
    assert len(config.skipped) == 2
    assert not (home / "executed").exists()


@pytest.mark.parametrize("between", ["\t", "=", " = ", "\t=\t", "  ", "\u00a0"])
def test_whatever_separates_a_keyword_from_its_value_it_is_followed_and_not_executed(
    home: Path, between: str
) -> None:
    path = write(
        home,
        f'Include{between}more\nMatch{between}exec "touch {home}/executed"\n\tPort\t1\n'
        f"Host{between}gate\n\tPort{between}5\n",
    )
    write(home, f"Host{between}pi\n\tPort{between}3\n", "more")
    config = load(path)
    assert (config.lookup("pi").port, config.lookup("gate").port) == (3, 5)
    assert config.aliases == ("pi", "gate")
    assert len(config.skipped) == 1
    assert not (home / "executed").exists()


def test_criteria_of_match_in_any_case_and_quoted_are_as_openssh_reads_them(home: Path) -> None:
    path = write(
        home,
        'Match HOST other\n  Port 1\nMatch !host pi,gate\n  Port 2\nMatch host "pi, x" exec true\n  Port 3\n'
        'Match Host "pi" LocalUser *\n  Port 4\n',
    )
    config = load(path)
    assert [config.lookup(name).port for name in ("pi", "gate", "third", "other")] == [4, None, 2, 1]
    assert config.skipped == ('Match host "pi, x" exec true',)


def test_users_that_do_not_exist_and_characters_that_end_no_line(home: Path) -> None:
    path = write(
        home,
        "Include ~no-such-user/x\nHost pi # a form feed \x0c ProxyCommand \x0b\n# \u2028 Port 9\n  Port 4\n"
        "  IdentityFile ~no-such-user/key\n  CertificateFile ~no-such-user/c\n"
        "  UserKnownHostsFile ~no-such-user/k\n  IdentityAgent ~no-such-user/a\n",
    )
    settings = load(path).lookup("pi")
    assert (settings.port, settings.identities, settings.known_hosts) == (4, (), ())
    assert settings.agent_socket == "~no-such-user/a"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('Include "x\n', "No closing quotation"),
        ('Host a\n  UserKnownHostsFile "x\n', "No closing quotation"),
        ("Host a\n  CanonicalizeHostname yes\n", "canonicaldomains"),
        ("Host a\n  CanonicalizeMaxDots x\n", "invalid literal"),
        ("Host a\n  Port \u00b2\n", "1 to 65535"),
        ("Host a\n  Port 65536\n", "1 to 65535"),
        ("Include config\n", "include itself"),
        ("Host a\n  Port many\n", "1 to 65535"),
        ("Host a\n  Include nested\n", "Host or Match blocks"),
        ("Host a\n  ProxyJump a\n", "circular"),
        ("Host a\n  ProxyJump b\nHost b\n  ProxyJump a\n", "circular"),
        ("Host a\n  ProxyJump -oProxyCommand=x\n", "HOST"),
        ("Host a\n  ProxyJump b:65536\n", "HOST"),
        ("Host a\n  ProxyJump b:0\n", "HOST"),
        ("Host a\n  ProxyJump b:\u0661\n", "HOST"),
        ("Host a\nPort\n", "ssh configuration"),
    ],
)
def test_a_configuration_that_cannot_be_followed_says_where(home: Path, text: str, message: str) -> None:
    write(home, "Host b\n  Port 1\n", "nested")
    write(home, text)
    with pytest.raises(ConfigError, match=message):
        resolve_route(name="pi", host="a", port=22, user="u")


def test_the_inventory_goes_before_the_configuration(home: Path) -> None:
    write(home, "Host pi\n  HostName far\n  Port 2222\n  ProxyJump gate\n  User other\n")
    route = resolve_route(name="pi", host="pi", port=8022, user="me", jump="none")
    assert [(hop.host, hop.port, hop.login.user) for hop in route.hops] == [("far", 8022, "me")]
    route = resolve_route(name="pi", host="pi", port=22, user="me")
    assert [(hop.host, hop.port) for hop in route.hops] == [("gate", 22), ("far", 2222)]
    route = resolve_route(name="pi", host="pi", port=22, user="me", ssh_config=False)
    assert [(hop.host, hop.port) for hop in route.hops] == [("pi", 22)]
    route = resolve_route(name="pi", host="pi", port=22, user="me", jump="a@b:3,[::1]:4", ssh_config=False)
    assert [(hop.host, hop.port) for hop in route.hops] == [("b", 3), ("::1", 4), ("pi", 22)]
    assert route.hops[0].login.user == "a"


def test_a_file_that_was_named_must_be_there(home: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        resolve_route(name="pi", host="pi", port=22, user="u", ssh_config=home / "gone")
    assert resolve_route(name="pi", host="pi", port=22, user="u").hops[0].host == "pi"


def sshd_key(server: Server) -> str:
    from edgeq.fleet.enrol import fetch_host_key

    return str(fetch_host_key(server.host, server.port, 9, ssh_config=False))


def gate(home: Path, server: Server, *, key: str | None = "own") -> str:
    """Write a configuration in which `gate` is a server, known by its key or not."""
    from edgeq.fleet.enrol import fetch_host_key

    shown = str(fetch_host_key(server.host, server.port, 9, ssh_config=False))
    known = home / ".ssh" / "known_hosts"
    known.write_text("junk, not a line\n|1|bad|bad ssh-rsa x\n")
    if key is not None:
        with known.open("a") as stream:
            stream.write(f"[{server.host}]:{server.port} {shown if key == 'own' else key}\n")
    write(
        home,
        f"Host gate\n  HostName {server.host}\n  Port {server.port}\n  User {server.user}\n"
        f"  IdentityFile {server.identity}\n  IdentitiesOnly yes\n  UserKnownHostsFile {known}\n"
        # The user's settings for a jump host do not weaken the check of its key.
        "  StrictHostKeyChecking no\n  NoHostAuthenticationForLocalhost yes\n",
    )
    return "gate"


@pytest.mark.sshd
@BOTH
def test_through_a_jump_host(
    home: Path, sshd_server: Server, loopback_server: Server, transport: TransportKind
) -> None:
    jump = gate(home, sshd_server)
    device = dataclasses.replace(loopback_server.device(), jump=jump, transport=transport)
    with open_transport(device) as opened:
        assert list(opened.run(["cat"], stdin=[b"hello\n" * 9], limits=LIMITS).lines()) == [b"hello"] * 9
    twice = dataclasses.replace(
        device, jump=f"{jump},{sshd_server.user}@{sshd_server.host}:{sshd_server.port}"
    )
    # The second hop names no identity, and ssh looks for known_hosts in the account's own home, not in $HOME.
    with pytest.raises(AuthenticationFailed if transport is TransportKind.PARAMIKO else HostKeyUnknown):
        open_transport(twice)


@pytest.mark.sshd
def test_a_device_behind_a_jump_is_enrolled_and_kept_so(
    home: Path, sshd_server: Server, loopback_server: Server, site: Path
) -> None:
    jump = gate(home, sshd_server)
    enrolled = loopback_server.enrol(site, "behind", jump=jump).jump
    assert enrolled == jump
    assert Inventory.load(site).get("behind").jump == jump


@pytest.mark.sshd
@BOTH
def test_a_jump_whose_key_is_not_known_or_another_gets_no_login(
    home: Path, sshd_server: Server, loopback_server: Server, transport: TransportKind
) -> None:
    device = dataclasses.replace(
        loopback_server.device(), jump=gate(home, sshd_server, key=None), transport=transport
    )
    with pytest.raises(HostKeyUnknown, match="is not known") as caught:
        open_transport(device)
    assert caught.value.code == "EQ407"
    gate(home, sshd_server, key=loopback_server.device().host_key)
    with pytest.raises(HostKeyMismatch, match="another host key than the one in known_hosts"):
        open_transport(device)


@pytest.mark.sshd
@BOTH
def test_a_device_that_the_jump_does_not_reach(
    home: Path, sshd_server: Server, loopback_server: Server, transport: TransportKind
) -> None:
    device = dataclasses.replace(
        loopback_server.device(), port=1, jump=gate(home, sshd_server), transport=transport
    )
    with pytest.raises(Unreachable, match="cannot connect to"):
        open_transport(device)


@pytest.mark.sshd
def test_a_certificate_opens_where_the_bare_key_does_not(
    home: Path, tmp_path: Path, sshd_server: Server
) -> None:
    def keygen(*argv: str) -> None:
        subprocess.run(["ssh-keygen", "-q", *argv], check=True, capture_output=True)

    keygen("-t", "ed25519", "-N", "", "-f", str(tmp_path / "ca"))
    keygen("-t", "ed25519", "-N", "", "-f", str(tmp_path / "key"))
    keygen("-s", str(tmp_path / "ca"), "-I", "me", "-n", sshd_server.user, str(tmp_path / "key.pub"))
    certificate = (tmp_path / "key-cert.pub").rename(tmp_path / "signed.pub")
    authorized = sshd_server.identity.parent / "authorized_keys"
    before = authorized.read_text()
    write(
        home,
        f"Host *\n  IdentityFile {tmp_path}/key\n  CertificateFile {certificate}\n  IdentitiesOnly yes\n",
    )
    device = dataclasses.replace(sshd_server.device(), identity=None)
    try:
        authorized.write_text(before + f"cert-authority {(tmp_path / 'ca.pub').read_text()}")
        with connect(device, timeout_s=9) as transport:
            assert list(transport.run(["echo", "in"], stdin=(), limits=LIMITS).lines()) == [b"in"]
    finally:
        authorized.write_text(before)


def forget(home: Path) -> None:
    (home / ".ssh" / "known_hosts").unlink()


@pytest.mark.first_is_quick
@pytest.mark.sshd
@BOTH
def test_a_jump_is_pinned_at_enrolment_and_needs_no_known_hosts_then(
    home: Path, sshd_server: Server, loopback_server: Server, site: Path, transport: TransportKind
) -> None:
    device = loopback_server.enrol(site, "behind", jump=gate(home, sshd_server), transport=transport)
    assert device.jump_host_key == sshd_key(sshd_server)
    assert Inventory.load(site).get("behind") == device
    forget(home)
    with open_transport(device) as opened:
        assert list(opened.run(["echo", "in"], stdin=(), limits=LIMITS).lines()) == [b"in"]
    other = dataclasses.replace(device, jump_host_key=loopback_server.device().host_key)
    with pytest.raises(
        HostKeyMismatch, match=r"behind \(via .*another host key than the one pinned"
    ) as caught:
        open_transport(other)
    assert f"rotate-key behind --jump-fingerprint {sshd_server.fingerprint}" in str(caught.value.hint)
    assert not caught.value.transient


@pytest.mark.sshd
@BOTH
def test_a_jump_host_without_a_key_is_named_with_a_hint(
    home: Path,
    sshd_server: Server,
    loopback_server: Server,
    site: Path,
    transport: TransportKind,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    jump = gate(home, sshd_server)
    config = home / ".ssh" / "config"
    config.write_text(config.read_text().replace(str(sshd_server.identity), str(home / "none")))
    with pytest.raises(AuthenticationFailed, match=r"^behind \(via .*\): ") as caught:
        loopback_server.enrol(site, "behind", jump=jump, transport=transport)
    assert "pass --identity" not in str(caught.value.hint)
    assert "--identity applies to the device only" in str(caught.value.hint)
    assert str(loopback_server.identity) not in str(caught.value)


@pytest.mark.first_is_quick
@pytest.mark.sshd
@BOTH
def test_a_jump_that_is_not_known_is_pinned_by_its_fingerprint(
    home: Path, sshd_server: Server, loopback_server: Server, site: Path, transport: TransportKind
) -> None:
    jump = gate(home, sshd_server, key=None)
    with pytest.raises(HostKeyUnknown, match="is not known") as unknown:
        loopback_server.enrol(site, "behind", jump=jump, transport=transport)
    assert "--jump-fingerprint" in str(unknown.value.hint)
    with pytest.raises(HostKeyMismatch, match="than the one given") as other:
        loopback_server.enrol(
            site, "behind", jump=jump, transport=transport, jump_fingerprints=["SHA256:" + "A" * 43]
        )
    # It is not enrolled: there is no key of it that could be renewed.
    assert f"pass --jump-fingerprint {sshd_server.fingerprint}" in str(other.value.hint)
    assert "rotate-key" not in str(other.value.hint)
    assert Inventory.load(site).devices == ()
    right = [sshd_server.fingerprint]
    device = loopback_server.enrol(site, "behind", jump=jump, transport=transport, jump_fingerprints=right)
    assert device.jump_host_key == sshd_key(sshd_server)
    Inventory.load(site).replace(dataclasses.replace(device, jump_host_key=loopback_server.device().host_key))
    again = rotate_key(site, "behind", jump_fingerprints=right)
    assert again == device == Inventory.load(site).get("behind")


def test_pins_must_be_as_many_as_machines(home: Path, loopback_server: Server, site: Path) -> None:
    key = loopback_server.device().host_key
    device = dataclasses.replace(loopback_server.device(), jump="a,b", jump_host_key=key)
    with pytest.raises(ConfigError, match=r"a key for each jump host \(a, b\)"):
        open_transport(device)
    with pytest.raises(UsageError, match="needs --jump"):
        loopback_server.enrol(site, jump_fingerprints=["SHA256:x"])
    loopback_server.enrol(site)
    with pytest.raises(UsageError, match="has no `jump`"):
        rotate_key(site, "pi", jump_fingerprints=["SHA256:x"])


def test_known_hosts_is_read_as_ssh_does(tmp_path: Path) -> None:
    def new(name: str) -> str:
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)]
        subprocess.run(argv, check=True)
        return " ".join((tmp_path / f"{name}.pub").read_text().split()[:2])

    plain, wild, hashed, gone, ca = (new(name) for name in ("plain", "wild", "hashed", "gone", "ca"))
    path = tmp_path / "known_hosts"
    path.write_text(f"hidden.example {hashed}\n[hidden.example]:2222 {hashed}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(path)], check=True, capture_output=True)
    assert "hidden" not in path.read_text()
    with path.open("a") as stream:
        stream.write(
            f"# a comment\njunk\n|1|bad|bad {plain}\n@unknown * {plain}\nPi-1,10.0.0.? {plain}\n"
            f"*.lab,!secret.lab,[*.lab]:2222 {wild}\n@revoked * {gone}\nold.lab {gone}\n"
            f"@cert-authority *.corp {ca}\n"
        )

    def keys(host: str, port: int = 22) -> set[str]:
        return {str(key) for key in known_keys(host, port, [path]).keys}

    assert keys("pi-1") == keys("PI-1") == keys("10.0.0.7") == {plain}
    assert keys("10.0.0.77") == keys("secret.lab") == keys("pi-1", 2222) == set()
    assert keys("a.lab") == keys("a.lab", 2222) == {wild}
    assert keys("hidden.example") == keys("hidden.example", 2222) == {hashed}
    for host in ("pi-1", "10.0.0.7", "hidden.example"):
        output = subprocess.run(
            ["ssh-keygen", "-F", host, "-f", str(path)], capture_output=True, text=True, check=False
        ).stdout
        assert all(key in output for key in keys(host)), host
    known = known_keys("old.lab", 22, [path])
    with pytest.raises(HostKeyRevoked, match="revokes"):
        check_known("pi", "old.lab", 22, known=known, shown=HostKey.parse(gone))
    check_known("pi", "a.lab", 22, known=known_keys("a.lab", 22, [path]), shown=HostKey.parse(wild))
    with pytest.raises(HostKeyUnknown, match="certificate authority") as caught:
        check_known("pi", "x.corp", 22, known=known_keys("x.corp", 22, [path]), shown=HostKey.parse(plain))
    assert "openssh" in str(caught.value.hint)
    with pytest.raises(HostKeyMismatch):
        check_known("pi", "x.lab", 22, known=known_keys("x.lab", 22, [path]), shown=HostKey.parse(ca))


def test_all_certificates_of_a_host_are_taken(home: Path) -> None:
    for name in ("one", "two", "three"):
        (home / name).write_text("x")
    path = write(
        home,
        f"Host pi\n  CertificateFile {home}/one\n  CertificateFile={home}/two\n"
        f"Host other\n  CertificateFile {home}/nothing\nHost *\n  CertificateFile ~/three\n",
    )
    assert load(path).lookup("pi").certificates == (home / "one", home / "two", home / "three")
    shown = subprocess.run(["ssh", "-G", "-F", str(path), "pi"], capture_output=True, text=True, check=True)
    theirs = [line.split()[1] for line in shown.stdout.splitlines() if line.startswith("certificatefile ")]
    assert [str(Path(name).expanduser()) for name in theirs] == [
        str(name) for name in load(path).lookup("pi").certificates
    ]


@pytest.mark.slow
def test_a_host_key_is_rotated_on_request_alone(workspace: Path, tmp_path: Path) -> None:
    with loopback_device(tmp_path / "device") as running:
        enrolled = enrol_at(running, workspace).device
    (tmp_path / "device" / "host_key").unlink()
    with loopback_device(tmp_path / "device", port=running.port) as anew:
        with pytest.raises(HostKeyMismatch, match="the host key changed"):
            connect(enrolled, timeout_s=9)
        with pytest.raises(HostKeyMismatch, match="the pinned one is kept"):
            rotate_key(workspace, "pi", fingerprint=running.fingerprint)
        assert Inventory.load(workspace).get("pi") == enrolled
        rotate_key(workspace, "pi", fingerprint=anew.fingerprint)
        connect(Inventory.load(workspace).get("pi"), timeout_s=9).close()
