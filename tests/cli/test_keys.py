"""`edgeq keys`: the trust document is made, changed, signed on several machines, and never locks out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeq.bundle.keys import find_private, keys_folder, workspace_key
from edgeq.bundle.trust_chain import load_chain
from edgeq.cli import main
from edgeq.fleet.responses import DeviceStatus, TrustSummary
from edgeq.fleet.trust import summary
from edgeq.fleet.trust_documents import pending, trust_steps
from edgeq.testing.tiny_bundle import write_tiny_bundle

Keys = Callable[..., Any]


@pytest.fixture
def keys(workspace: Path, capsys: pytest.CaptureFixture[str]) -> Keys:
    """Run `edgeq keys ...` and return its document, or the error."""

    def run(*argv: str, at: Path = workspace, expected: int = 0) -> Any:
        capsys.readouterr()
        status = main(["--workspace", str(at), "keys", *argv, "--json"])
        captured = capsys.readouterr()
        assert status == expected, captured
        assert captured.out.count("\n") <= 1
        body = json.loads(captured.out)
        return body["error"] if expected else body

    return run


def roles(document: dict[str, Any]) -> dict[str, set[str]]:
    body = document["document"]["document"]
    return {
        name: {body["keys"][key_id]["name"] for key_id in role["keys"]}
        for name, role in body["roles"].items()
    }


def test_a_document_begins_with_a_root_key_of_its_own(keys: Keys, workspace: Path) -> None:
    own = workspace_key(workspace)
    made = keys("init")
    assert (made["version"], made["draft"], made["needed"]) == (1, None, {})
    assert roles(made) == {"root": {"root"}, "release": {"workspace"}}
    signers = {entry["key"] for entry in made["document"]["signatures"]}
    assert signers == {find_private(workspace, "root").public.id, own.public.id}, "enrolled devices accept it"
    assert keys("show") == {**made}
    error = keys("init", expected=1)
    assert (error["code"], "keys change" in error["hint"]) == ("EQ608", True)


def test_a_leaked_key_is_revoked_replaced_and_its_counters_reset_in_one_document(
    keys: Keys, workspace: Path
) -> None:
    keys("init")
    leaked = workspace_key(workspace).public.id
    after = keys("recover", "workspace", "--replace-by", "next", "--reset-counter", "kws=17")
    body = after["document"]["document"]
    assert (after["version"], body["revoked"]) == (2, [leaked])
    assert roles(after) == {"root": {"root"}, "release": {"next"}}
    assert body["counters"] == {"kws": {"version": 2, "counter": 17, "void": []}}
    assert keys("reset-counter", "pose", "--to", "3")["document"]["document"]["counters"].keys() == {
        "kws",
        "pose",
    }
    again = keys("change", "--add-release", "workspace", expected=1)
    assert "final" in again["message"]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["change", "--revoke", "workspace"], "--add-release"),
        (["change", "--revoke", "root"], "--add-root"),
        (["change", "--drop-root", "root"], "--add-root"),
        (["change", "--root-threshold", "2"], "--root-threshold"),
        (["change", "--release-threshold", "2"], "--release-threshold"),
        (["recover", "workspace"], "--add-release"),
        (["recover", "root"], "--add-root"),
    ],
)
def test_a_change_that_would_lock_the_fleet_out_is_refused(keys: Keys, argv: list[str], words: str) -> None:
    keys("init")
    error = keys(*argv, expected=1)
    assert error["code"] == "EQ609"
    assert words in error["hint"]
    shown = keys("show")
    assert (shown["version"], shown["draft"]) == (1, None)


def test_keys_are_rotated_in_every_role(keys: Keys) -> None:
    keys("init")
    assert roles(keys("rotate", "root", "root-2")) == {"root": {"root-2"}, "release": {"workspace"}}
    assert roles(keys("rotate", "workspace", "release-2"))["release"] == {"release-2"}
    assert keys("show")["version"] == 3
    assert keys("rotate", "root", "root-3", expected=1)["code"] == "EQ608"


def test_root_keys_on_two_machines_sign_one_draft(keys: Keys, workspace: Path, tmp_path: Path) -> None:
    """Copies of one file go between the machines; no private key does."""
    bob = tmp_path / "bob"
    bob.mkdir()
    keys("new", "bob", at=bob)
    shutil.copy(keys_folder(bob) / "bob.pub", workspace / "bob.pub")
    keys("new", "alice")
    both = ["--root", "alice", "--root", str(workspace / "bob.pub"), "--root-threshold", "2"]
    draft = keys("init", *both)
    assert draft["version"] == 0
    assert draft["needed"] == {"new root": [find_private(bob, "bob").public.id]}
    stick = tmp_path / "stick.json"
    shutil.copy(workspace / ".edgeq" / "trust.json", stick)
    assert keys("change", "--release-threshold", "1", expected=1)["code"] == "EQ608", "it is not in force"
    assert keys("sign", str(stick), "--by", "alice", expected=1)["code"] == "EQ608", "she has signed"
    signed = keys("sign", str(stick), "--by", "bob", at=bob)
    assert signed["version"] == 1
    assert keys("import", str(stick))["version"] == 1
    assert keys("import", str(stick), at=bob)["version"] == 1
    waiting = keys("change", "--expires", "2099-01-31")
    assert waiting["needed"].keys() == {"old root", "new root"}
    assert keys("change", "--expires", "2098-01-31", expected=1)["code"] == "EQ608", "one draft at a time"
    assert keys("change", "--discard")["draft"] is None
    assert load_chain(workspace / ".edgeq" / "trust.json").version == 1


@pytest.mark.parametrize(
    ("argv", "status"),
    [
        (["change"], 2),
        (["change", "--expires", "soon"], 2),
        (["change", "--add-release", "workspace"], 1),
        (["rotate", "root", "root"], 2),
        (["reset-counter", "../x", "--to", "1"], 2),
        (["recover", "workspace", "--reset-counter", "KWS=1"], 2),
        (["change", "--expires", "2001-01-01"], 2),
        (["recover", "workspace", "--reset-counter", "kws"], 2),
        (["recover", "0123456789abcdef"], 1),
        (["change", "--add-root", "nobody"], 1),
        (["change", "--expires", "2099-01-01", "--by", "nobody"], 1),
        (["import", "nothing.json"], 1),
        (["sign", "nothing.json"], 1),
    ],
)
def test_what_cannot_be_done_is_one_line(keys: Keys, argv: list[str], status: int) -> None:
    keys("init")
    error = keys(*argv, expected=status)
    assert error["hint"]
    assert keys("show")["version"] == 1


def test_a_chain_that_was_lost_goes_on_with_the_same_root(keys: Keys, workspace: Path) -> None:
    """The next version, signed by the root that devices know: they need no login for it."""
    keys("init")
    before = keys("change", "--expires", "2099-01-01")
    (workspace / ".edgeq" / "trust.json").unlink()
    after = keys("init", "--restart", "--version", str(before["version"] + 1))
    root = set(before["document"]["document"]["roles"]["root"]["keys"])
    assert root == set(after["document"]["document"]["roles"]["root"]["keys"])
    assert root <= {entry["key"] for entry in after["document"]["signatures"]}
    chain = load_chain(workspace / ".edgeq" / "trust.json")
    known = TrustSummary.model_validate(
        {"keys": [], "revoked": [], "threshold": 1, "counters": {}, "version": 2, "document_sha256": "a" * 64}
    )
    assert [each.document.version for each in pending(chain, known)] == [3]


def test_a_bundle_is_verified_by_the_trust_document(
    keys: Keys, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A revoked key of this workspace does not count, although its file is still here."""
    path = workspace / "a.eqb"
    write_tiny_bundle(path, workspace=workspace)
    verify = ["--workspace", str(workspace), "bundle", "verify", str(path)]
    assert main(verify) == 0
    keys("init")
    assert main(verify) == 0
    keys("rotate", "workspace", "next")
    assert main(verify) == 1
    assert "EQ604" in capsys.readouterr().err


def test_an_expired_document_is_seen_before_anything_is_sent(workspace: Path) -> None:
    bundle = write_tiny_bundle(workspace / "a.eqb", workspace=workspace)
    (signature,) = bundle.signed_by
    trust = TrustSummary(
        keys=(signature.key.id,), revoked=(), threshold=1, counters={}, version=1, expires_s=1000
    )
    status = DeviceStatus(models={}, trust=trust)
    assert trust_steps(status, bundle, device_time_s=999) == []
    assert [step.code for step in trust_steps(status, bundle, device_time_s=1000)] == ["EQ524"]
    assert "1970-01-01" in summary(trust)
    assert "9999" in summary(trust.model_copy(update={"expires_s": 2**62})), "a hostile device"


def test_verbs_that_need_a_document_name_the_one_that_makes_it(keys: Keys) -> None:
    for argv in (
        ["change", "--root-threshold", "1"],
        ["rotate", "a", "b"],
        ["reset-counter", "kws", "--to", "1"],
    ):
        assert "edgeq keys init" in keys(*argv, expected=1)["hint"], argv
    assert keys("show")["document"] is None
    assert keys("push", "--on", "all", expected=1)["code"] == "EQ608"


def test_a_lost_root_is_replaced_by_a_document_that_starts_again(keys: Keys, workspace: Path) -> None:
    keys("init")
    keys("rotate", "workspace", "next")
    (keys_folder(workspace) / "root").unlink()
    assert "waits for" not in json.dumps(keys("show"))
    lost = keys("change", "--expires", "2099-01-01")
    assert lost["needed"], "no one can sign it"
    keys("change", "--discard")
    before = (workspace / ".edgeq" / "trust.json").read_bytes()
    revoked = keys("init", "--restart", "--root", "root-2", expected=1)
    assert "--release KEY" in revoked["hint"], "devices never trust the key `workspace` again"
    refused = keys("init", "--restart", "--release", "next", expected=1)
    assert "--root NEW" in refused["hint"], "the lost key cannot sign the new document either"
    assert (workspace / ".edgeq" / "trust.json").read_bytes() == before
    again = keys("init", "--restart", "--root", "root-2", "--release", "next")
    assert (workspace / ".edgeq" / "trust-replaced-1.json").read_bytes() == before
    assert (again["version"], roles(again)["root"]) == (3, {"root-2"})
    (workspace / ".edgeq" / "trust.json").write_text("{")
    assert "--version" in keys("init", "--restart", "--root", "root-2", expected=1)["hint"]
    assert keys("init", "--restart", "--root", "root-2", "--version", "9")["version"] == 9


@pytest.fixture
def ssh_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Run an ssh agent of this test's own, and return its socket."""
    socket = tmp_path / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it listens
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        yield socket
        process.terminate()


def ssh_add(*argv: str | Path, answer: str = "") -> None:
    askpass = {"SSH_ASKPASS_REQUIRE": "force", "SSH_ASKPASS": answer} if answer else {}
    subprocess.run(
        ["ssh-add", "-q", *argv], check=True, env={**os.environ, **askpass}, stdin=subprocess.DEVNULL
    )


def test_a_protected_key_is_made_and_signs(
    keys: Keys, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("correct horse\n")
    secret.chmod(0o600)
    assert keys("new", "root", "--passphrase", expected=2)["code"] == "EQ101", "no one can be asked"
    monkeypatch.setenv("EDGEQ_KEY_PASSPHRASE_FILE", str(secret))
    keys("new", "root", "--passphrase")
    private = keys_folder(workspace) / "root"
    assert b"OPENSSH PRIVATE KEY" in private.read_bytes()
    assert keys("init")["version"] == 1
    secret.write_text("another\n")
    wrong = keys("change", "--expires", "2099-01-01", expected=1)
    assert (wrong["code"], "passphrase is wrong" in wrong["message"]) == ("EQ602", True)
    secret.chmod(0o644)
    assert "readable by other users" in keys("change", "--expires", "2099-01-01", expected=1)["message"]
    monkeypatch.delenv("EDGEQ_KEY_PASSPHRASE_FILE")
    missing = keys("change", "--expires", "2099-01-01", expected=1)
    assert "EDGEQ_KEY_PASSPHRASE_FILE" in missing["hint"]
    assert "correct horse" not in json.dumps([wrong, missing])


def test_keys_in_the_ssh_agent_sign_without_a_file(keys: Keys, workspace: Path, ssh_agent: Path) -> None:
    """The private files are moved into the agent; the public ones, or `agent:NAME`, name the keys."""
    keys("new", "root")
    workspace_key(workspace)
    for name in ("root", "workspace"):
        private = keys_folder(workspace) / name
        subprocess.run(["ssh-keygen", "-q", "-c", "-C", name, "-f", private], check=True)
        ssh_add(private)
        private.unlink()
    made = keys("init")
    assert (made["version"], len(made["document"]["signatures"])) == (1, 2)
    assert keys("change", "--expires", "2099-01-01", "--by", "agent:root")["version"] == 2
    fingerprint = subprocess.run(
        ["ssh-keygen", "-lf", keys_folder(workspace) / "root.pub"], capture_output=True, text=True, check=True
    ).stdout.split()[1]
    assert keys("change", "--expires", "never", "--by", f"agent:{fingerprint}")["version"] == 3
    unknown = keys("change", "--expires", "2099-01-01", "--by", "agent:nobody", expected=1)
    assert "ssh-add -l" in unknown["hint"]
    ssh_add("-D")
    gone = keys("change", "--expires", "2099-01-01", "--by", "root", expected=1)
    assert (gone["code"], "ssh agent" in gone["message"]) == ("EQ602", True)
    from edgeq.errors import SigningKeyError

    with pytest.raises(SigningKeyError, match="ssh agent"):
        workspace_key(workspace)
    assert not (keys_folder(workspace) / "workspace").exists(), "no new key took the place of the moved one"


SOFTHSM = next(iter(sorted(Path("/usr/lib").glob("**/libsofthsm2.so"))), None)
PIN = "1234"


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URI of an Ed25519 key in a software token; a file that the environment names has the PIN."""
    pkcs11 = pytest.importorskip("pkcs11", reason="needs the extra `pkcs11`")
    if SOFTHSM is None or shutil.which("softhsm2-util") is None:
        pytest.skip("no software token is installed (apt-get install softhsm2)")
    (tmp_path / "tokens").mkdir()
    (tmp_path / "softhsm.conf").write_text(f"directories.tokendir = {tmp_path / 'tokens'}\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(tmp_path / "softhsm.conf"))
    label = f"token-{tmp_path.name}"[-32:]
    init = ["softhsm2-util", "--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", "5678"]
    subprocess.run(init, check=True, capture_output=True)
    library = pkcs11.lib(str(SOFTHSM))
    library.reinitialize()
    from pkcs11.util.ec import encode_named_curve_parameters

    curve = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters("1.3.101.112")}
    with library.get_token(token_label=label).open(user_pin=PIN, rw=True) as session:
        session.create_domain_parameters(pkcs11.KeyType.EC_EDWARDS, curve, local=True).generate_keypair(
            mechanism=pkcs11.Mechanism.EC_EDWARDS_KEY_PAIR_GEN, store=True, label="root"
        )
    (tmp_path / "pin").write_text(PIN)
    (tmp_path / "pin").chmod(0o600)
    monkeypatch.setenv("EDGEQ_KEY_PASSPHRASE_FILE", str(tmp_path / "pin"))
    return f"pkcs11:token={label};object=root?module-path={SOFTHSM}"


def test_a_key_in_a_token_signs_and_never_leaves_it(
    keys: Keys, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "tensorflow" in sys.modules:  # the token's library finds TensorFlow's BoringSSL and crashes
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        own = ["--basetemp", str(tmp_path / "own"), f"{__file__}::{request.node.name}"]
        subprocess.run([*command, *own], check=True)
        return
    token: str = request.getfixturevalue("token")
    made = keys("init", "--root", token, "--by", token)
    assert (made["version"], roles(made)["root"]) == (1, {"root"})
    assert keys("export", token)["line"].startswith("ssh-ed25519 ")
    assert keys("change", "--expires", "2099-01-01", "--by", token)["version"] == 2
    (tmp_path / "pin").write_text("9999")
    wrong = keys("change", "--expires", "never", "--by", token, expected=1)
    assert (wrong["code"], "PIN is wrong" in wrong["message"]) == ("EQ602", True)
    monkeypatch.delenv("EDGEQ_KEY_PASSPHRASE_FILE")
    assert "needs its PIN" in keys("change", "--expires", "never", "--by", token, expected=1)["message"]
    for other in (token.replace("object=root", "object=x"), "pkcs11:", token.replace("token=", "token=x")):
        assert keys("change", "--expires", "never", "--by", other, expected=1)["code"] == "EQ602", other


def test_a_locked_agent_and_other_kinds_of_keys_are_one_line(
    keys: Keys, workspace: Path, tmp_path: Path, ssh_agent: Path
) -> None:
    rsa = tmp_path / "rsa"
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", rsa], check=True)
    ssh_add(rsa)
    keys("init")
    for name in ("agent:rsa", str(rsa), f"{rsa}.pub"):
        error = keys("change", "--expires", "2099-01-01", "--by", name, expected=1)
        assert error["code"] == "EQ602", name
    no_agent = tmp_path / "none"
    os.environ["SSH_AUTH_SOCK"] = str(no_agent)  # the fixture restores it
    assert keys("change", "--expires", "2099-01-01", "--by", "agent:x", expected=1)["code"] == "EQ602"


@pytest.mark.parametrize(
    "argv", [("recover", "workspace", "--replace-by", "next"), ("rotate", "workspace", "next")]
)
def test_no_key_is_made_for_a_document_that_does_not_exist(
    keys: Keys, workspace: Path, argv: tuple[str, ...]
) -> None:
    error = keys(*argv, expected=1)
    assert error["code"] == "EQ608"
    assert "--on" in error["hint"]
    assert not (keys_folder(workspace) / "next").exists()


def test_a_draft_that_waits_is_the_reason_why_nothing_is_sent(keys: Keys, workspace: Path) -> None:
    keys("init", "--root", "root", "--root", "other", "--root-threshold", "2")
    (keys_folder(workspace) / "other").unlink()
    keys("init", "--restart", "--root", "root", "--root", "other", "--root-threshold", "2")
    assert "edgeq keys sign" in keys("push", "--on", "all", expected=1)["hint"]


def test_a_key_that_does_not_exist_is_named(keys: Keys) -> None:
    keys("init")
    error = keys("change", "--add-release", "nokey", expected=1)
    assert error["code"] == "EQ602"
    assert "no key of this workspace and no file has that name" in error["message"]
    assert "edgeq keys list" in error["hint"]
