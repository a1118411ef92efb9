"""Signing keys as files, in OpenSSH's format or PEM: create, find and read them."""

from __future__ import annotations

import base64
import os
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from edgeq.errors import SigningKeyError
from edgeq.files import sync_folder, write_atomic
from edgeq_agent import wire

# The key that a workspace creates for itself; it signs by default.
WORKSPACE_KEY = "workspace"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
# A key file has a few hundred bytes.
_LARGEST_BYTES = 64 * 1024
_OPENSSH = b"-----BEGIN OPENSSH PRIVATE KEY-----"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """A key that verifies signatures.

    Attributes:
        raw: its 32 bytes.
        name: for display, also on devices.
    """

    raw: bytes
    name: str

    @property
    def id(self) -> str:
        """The id of the key, the same on every device."""
        return wire.key_id(self.raw)

    @property
    def base64(self) -> str:
        """The key's bytes in base64."""
        return base64.b64encode(self.raw).decode("ascii")

    @property
    def line(self) -> str:
        """The key in OpenSSH's format, without a newline."""
        data = Ed25519PublicKey.from_public_bytes(self.raw).public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
        return f"{data.decode('ascii')} {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A key that signs. The secret never leaves this object: it is neither displayed nor sent."""

    public: PublicKey
    _private: Ed25519PrivateKey = field(repr=False, compare=False)

    def sign(self, message: bytes) -> bytes:
        """Return the signature; Ed25519 is deterministic."""
        return self._private.sign(message)


def keys_folder(workspace: Path) -> Path:
    """Return the folder of a workspace's keys."""
    return workspace / ".edgeq" / "keys"


def workspace_key(workspace: Path) -> SigningKey:
    """Return the workspace's own key; the first call creates it.

    Raises:
        SigningKeyError: the key cannot be used, or cannot be written.
    """
    path = keys_folder(workspace) / WORKSPACE_KEY
    if not path.exists():
        try:
            return new_key(workspace, WORKSPACE_KEY)
        except SigningKeyError:
            if not path.exists():
                raise
            # Another process created it in the meantime; there is only one.
    return read_private(path)


def new_key(workspace: Path, name: str) -> SigningKey:
    """Create a key: `NAME` (mode 0600) and `NAME.pub` in the workspace's key folder.

    Raises:
        SigningKeyError: the name is invalid or taken, or the files cannot be written.
    """
    path = keys_folder(workspace) / check_key_name(name)
    private = Ed25519PrivateKey.generate()
    data = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    key = _signing(private, name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.chmod(0o700)
        # A workspace is often a repository: private keys must not be committed by accident.
        write_atomic(path.parent / ".gitignore", b"*\n!.gitignore\n!*.pub\n")
        _write_whole(path, data)
        write_atomic(path.with_name(f"{name}.pub"), f"{key.public.line}\n".encode("ascii"))
    except FileExistsError as error:
        hint = "choose another name; a key is never overwritten"
        raise SigningKeyError(f"key {name}", "exists already", hint=hint) from error
    except OSError as error:
        raise SigningKeyError(str(path), f"cannot be written: {error.strerror}") from error
    return key


def find_private(workspace: Path, key: str) -> SigningKey:
    """Return the signing key for a key name of the workspace or a path.

    Raises:
        SigningKeyError: the key is missing or cannot be used.
    """
    if key == WORKSPACE_KEY:
        return workspace_key(workspace)
    named = keys_folder(workspace) / key
    return read_private(named if _NAME.fullmatch(key) and named.exists() else Path(key))


def find_public(workspace: Path, key: str) -> PublicKey:
    """Return the public key for a key name of the workspace or a path (private or `.pub`).

    Raises:
        SigningKeyError: the key is missing, or is not an Ed25519 key.
    """
    if key == WORKSPACE_KEY:
        return workspace_key(workspace).public
    named = (
        [keys_folder(workspace) / f"{key}.pub", keys_folder(workspace) / key] if _NAME.fullmatch(key) else []
    )
    path = next((path for path in named if path.exists()), Path(key))
    data = _content(path)
    return read_private(path).public if b"PRIVATE KEY" in data else _public(path, data)


def known_keys(workspace: Path) -> tuple[PublicKey, ...]:
    """Return the public keys of a workspace, by name."""
    paths = sorted(keys_folder(workspace).glob("*.pub"))
    return tuple(_public(path, _content(path)) for path in paths)


def read_private(path: Path) -> SigningKey:
    """Read a private key in OpenSSH's format or PEM (PKCS #8).

    Raises:
        SigningKeyError: the file is missing, is not an Ed25519 key, has a passphrase, or is readable by
            others.
    """
    data = _content(path)
    if path.stat().st_mode & 0o077:
        raise SigningKeyError(
            str(path),
            "is readable by other users",
            expected="mode 0600",
            got=f"mode {path.stat().st_mode & 0o777:04o}",
            hint=f"chmod 600 {path}; if others may have read it, create a new key and revoke this one",
        )
    read = serialization.load_pem_private_key
    if _OPENSSH in data:
        read = serialization.load_ssh_private_key
    try:
        private = read(data, password=None)
    except TypeError as error:
        hint = f"remove it from a copy for this machine: `ssh-keygen -p -f {path}`"
        raise SigningKeyError(str(path), "has a passphrase", hint=hint) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _no_key(path, "another or a damaged file") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise _no_key(path, type(private).__name__)
    return _signing(private, path.name)


def check_key_name(name: str) -> str:
    """Return `name` if it is a valid key name.

    Raises:
        SigningKeyError: it has invalid characters, or is the name of a public key's file.
    """
    if not _NAME.fullmatch(name) or name.endswith(".pub"):
        raise SigningKeyError(
            "key name", expected="letters, digits, '.', '_' and '-', 1 to 63 of them", got=repr(name[:80])
        )
    return name


def _signing(private: Ed25519PrivateKey, name: str) -> SigningKey:
    raw = private.public_key().public_bytes_raw()
    return SigningKey(public=PublicKey(raw=raw, name=_short(name)), _private=private)


def _write_whole(path: Path, data: bytes) -> None:
    # Written aside and linked: a key is never partial, and never replaces another.
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    aside = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.link(aside, path)
    finally:
        aside.unlink()
    sync_folder(path.parent)


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(_LARGEST_BYTES + 1)
    except OSError as error:
        raise SigningKeyError(str(path), error.strerror or "cannot be read") from error
    if len(data) > _LARGEST_BYTES:
        raise _no_key(path, f"more than {_LARGEST_BYTES} bytes")
    return data


def _public(path: Path, data: bytes) -> PublicKey:
    read = serialization.load_pem_public_key if b"-----BEGIN" in data else serialization.load_ssh_public_key
    try:
        key = read(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _no_key(path, "another or a damaged file") from error
    if not isinstance(key, Ed25519PublicKey):
        raise _no_key(path, type(key).__name__)
    return PublicKey(raw=key.public_bytes_raw(), name=_short(path.name.removesuffix(".pub")))


def _no_key(path: Path, got: str) -> SigningKeyError:
    return SigningKeyError(str(path), expected="an Ed25519 key in OpenSSH's format or PEM", got=got)


def _short(name: str) -> str:
    # Devices accept only short plain names; a file may have any name.
    kept = re.sub(r"[^A-Za-z0-9._@-]", "-", name).lstrip("._@-")[:63]
    return kept or "key"
