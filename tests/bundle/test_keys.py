"""Key files: written completely or not at all, readable by their owner only, refused when damaged."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgeq.bundle.keys import (
    find_private,
    find_public,
    keys_folder,
    known_keys,
    new_key,
    read_private,
    workspace_key,
)
from edgeq.errors import SigningKeyError


def put(path: Path, data: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


def pem(key: object, password: bytes | None = None) -> bytes:
    protection = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    data: bytes = key.private_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection
    )
    return data


def test_a_new_key_is_its_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        key = new_key(tmp_path, "release")
    finally:
        os.umask(before)
    folder = keys_folder(tmp_path)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "release").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in folder.iterdir()) == [".gitignore", "release", "release.pub"]
    assert find_private(tmp_path, "release").public == find_public(tmp_path, "release") == key.public
    assert known_keys(tmp_path) == (key.public,)


def test_git_leaves_the_private_key_out(tmp_path: Path) -> None:
    new_key(tmp_path, "release")
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    status = ["git", "-C", str(tmp_path), "status", "--porcelain", "--untracked-files=all"]
    listed = subprocess.run(status, capture_output=True, text=True, check=True).stdout
    assert "release.pub" in listed
    assert "keys/release\n" not in listed


def test_ssh_keygen_reads_it(tmp_path: Path) -> None:
    key = new_key(tmp_path, "release")
    path = keys_folder(tmp_path) / "release"
    shown = subprocess.run(
        ["ssh-keygen", "-y", "-f", path], capture_output=True, text=True, check=True
    ).stdout
    assert shown.split()[:2] == key.public.line.split()[:2]


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    new_key(tmp_path, "release")
    before = (keys_folder(tmp_path) / "release").read_bytes()
    with pytest.raises(SigningKeyError, match="already"):
        new_key(tmp_path, "release")
    assert (keys_folder(tmp_path) / "release").read_bytes() == before


def test_the_workspace_makes_one_key_however_many_ask_at_once(tmp_path: Path) -> None:
    keys = []
    threads = [threading.Thread(target=lambda: keys.append(workspace_key(tmp_path).public)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8
    assert set(keys) == {workspace_key(tmp_path).public}


def test_pem_and_openssh_are_read(tmp_path: Path) -> None:
    private = Ed25519PrivateKey.generate()
    openssh = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    one = read_private(put(tmp_path / "one", pem(private))).public
    two = read_private(put(tmp_path / "two", openssh)).public
    three = find_public(tmp_path, str(put(tmp_path / "three.pub", public, 0o644)))
    assert one.raw == two.raw == three.raw
    assert one.id == three.id


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    new_key(tmp_path, "release")
    path = keys_folder(tmp_path) / "release"
    path.chmod(0o640)
    with pytest.raises(SigningKeyError, match="is readable by other users"):
        find_private(tmp_path, "release")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "another or a damaged"),
        (b"hello", "another or a damaged"),
        (pem(generate_private_key(SECP256R1())), "PrivateKey"),
        (pem(Ed25519PrivateKey.generate())[:60], "another or a damaged"),
        (pem(Ed25519PrivateKey.generate(), b"secret"), "passphrase"),
        (b"x" * 100_000, "more than"),
    ],
    ids=["empty", "no key", "another kind of key", "half a key", "with a passphrase", "endless"],
)
def test_an_invalid_signing_key_is_refused(tmp_path: Path, data: bytes, words: str) -> None:
    path = put(tmp_path / "key", data)
    with pytest.raises(SigningKeyError, match=words) as caught:
        read_private(path)
    assert "secret" not in caught.value.message
    with pytest.raises(SigningKeyError):
        find_public(tmp_path, str(path))


@pytest.mark.parametrize("name", ["", "..", "a/b", "-x", "a b", "x.pub", "a;b", "$(x)", "a" * 64])
def test_what_may_not_name_a_key(tmp_path: Path, name: str) -> None:
    with pytest.raises(SigningKeyError):
        new_key(tmp_path, name)
    assert not list(tmp_path.rglob("*.pub"))


def test_a_file_may_be_called_anything(tmp_path: Path) -> None:
    """Devices take plain names only; the key's name there is made from the file's."""
    path = put(tmp_path / "Ünser key (1)", pem(Ed25519PrivateKey.generate()))
    assert read_private(path).public.name == "nser-key--1-"
