"""Signing keys: create, find and read the files; a key without its private file signs in the ssh agent."""

from __future__ import annotations

import base64
import os
import re
import tempfile
from collections.abc import Callable
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
# Names a file with the passphrase of protected keys, for runs without a terminal.
PASSPHRASE_FILE = "EDGEQ_KEY_PASSPHRASE_FILE"  # noqa: S105 - the name of a variable
# Returns the passphrase of a key file; None where there is none to be had.
Passphrase = Callable[[Path], bytes | None]
_AGENT = "agent:"
_TOKEN = "pkcs11:"  # noqa: S105 - how the name of a key begins
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
    """A key that signs. The secret stays in this object or is not in it: it is neither displayed nor sent."""

    public: PublicKey
    _sign: Callable[[bytes], bytes] = field(repr=False, compare=False)

    def sign(self, message: bytes) -> bytes:
        """Return the signature; Ed25519 is deterministic.

        Raises:
            SigningKeyError: the key is not in this process, and whoever has it does not sign.
        """
        return self._sign(message)


def keys_folder(workspace: Path) -> Path:
    """Return the folder of a workspace's keys."""
    return workspace / ".edgeq" / "keys"


def workspace_key(workspace: Path, passphrase: Passphrase | None = None) -> SigningKey:
    """Return the workspace's own key; the first call creates it.

    Raises:
        SigningKeyError: the key cannot be used, or cannot be written.
    """
    path = keys_folder(workspace) / WORKSPACE_KEY
    public = path.with_name(f"{WORKSPACE_KEY}.pub")
    if not path.exists() and public.exists():
        return _elsewhere(public)  # the private file was moved away: another key must not take its place
    if not path.exists():
        try:
            return new_key(workspace, WORKSPACE_KEY)
        except SigningKeyError:
            if not path.exists():
                raise
            # Another process created it in the meantime; there is only one.
    return read_private(path, passphrase)


def new_key(workspace: Path, name: str, *, passphrase: bytes | None = None) -> SigningKey:
    """Create a key: `NAME` (mode 0600) and `NAME.pub` in the workspace's key folder.

    Args:
        passphrase: encrypt the private file with it.

    Raises:
        SigningKeyError: the name is invalid or taken, or the files cannot be written.
    """
    path = keys_folder(workspace) / check_key_name(name)
    private = Ed25519PrivateKey.generate()
    protection: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        protection = serialization.BestAvailableEncryption(passphrase)
    data = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, protection)
    key = _signing(private, name)
    try:
        if path.with_name(f"{name}.pub").exists():
            raise FileExistsError
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


def find_private(workspace: Path, key: str, passphrase: Passphrase | None = None) -> SigningKey:
    """Return the signing key for a key name of the workspace, a path, `agent:NAME`, or `pkcs11:...`.

    Where only the public file is there, the key signs in the ssh agent.

    Args:
        passphrase: asked for the passphrase of a protected file; by default the file that the environment
            names has it.

    Raises:
        SigningKeyError: the key is missing or cannot be used.
    """
    if key.startswith(_AGENT):
        from edgeq.bundle.ssh_agent import key_named

        return key_named(key.removeprefix(_AGENT))
    if key.startswith(_TOKEN):
        from edgeq.bundle.pkcs11_keys import token_key

        return token_key(key, passphrase or passphrase_of_environment)
    if key == WORKSPACE_KEY:
        return workspace_key(workspace, passphrase)
    named = keys_folder(workspace) / key
    candidates = [named, named.with_name(f"{key}.pub")] if _NAME.fullmatch(key) else []
    path = next((path for path in candidates if path.exists()), Path(key))
    if path.suffix == ".pub" or b"PRIVATE KEY" not in _content(path)[:200]:
        return _elsewhere(path)
    return read_private(path, passphrase)


def find_public(workspace: Path, key: str) -> PublicKey:
    """Return the public key for a key name of the workspace, a path (private or `.pub`), or a key elsewhere.

    Raises:
        SigningKeyError: the key is missing, or is not an Ed25519 key.
    """
    if key.startswith(_TOKEN):
        from edgeq.bundle.pkcs11_keys import token_public

        return token_public(key)
    if key.startswith(_AGENT):
        return find_private(workspace, key).public
    if key == WORKSPACE_KEY and not (keys_folder(workspace) / f"{WORKSPACE_KEY}.pub").exists():
        return workspace_key(workspace).public
    named = (
        [keys_folder(workspace) / f"{key}.pub", keys_folder(workspace) / key] if _NAME.fullmatch(key) else []
    )
    path = next((path for path in named if path.exists()), Path(key))
    if named and not path.exists():
        raise SigningKeyError(f"key {key!r}", "no key of this workspace and no file has that name")
    data = _content(path)
    return read_private(path).public if b"PRIVATE KEY" in data else _public(path, data)


def known_keys(workspace: Path) -> tuple[PublicKey, ...]:
    """Return the public keys of a workspace, by name."""
    paths = sorted(keys_folder(workspace).glob("*.pub"))
    return tuple(_public(path, _content(path)) for path in paths)


def has_private(workspace: Path, key: PublicKey) -> bool:
    """Return whether a key of the workspace can sign here: from its file, or in the ssh agent."""
    from edgeq.bundle.ssh_agent import agent_keys

    file = keys_folder(workspace) / key.name
    return file.exists() or any(each.public.raw == key.raw for each in agent_keys())


def read_private(path: Path, passphrase: Passphrase | None = None) -> SigningKey:
    """Read a private key in OpenSSH's format or PEM (PKCS #8).

    Args:
        passphrase: asked where the file is protected; by default the file that the environment names has it.

    Raises:
        SigningKeyError: the file is missing, is not an Ed25519 key, is readable by others, or is protected
            and the passphrase is missing or wrong.
    """
    data = _content(path)
    _check_mode(path)
    read = serialization.load_pem_private_key
    if _OPENSSH in data:
        read = serialization.load_ssh_private_key
    try:
        private = read(data, password=None)
    except TypeError as error:
        secret = (passphrase or passphrase_of_environment)(path)
        if secret is None:
            hint = (
                f"put the passphrase into a file of mode 0600 and set {PASSPHRASE_FILE} to its path, or load "
                f"the key into the ssh agent (`ssh-add {path}`) and name its .pub file"
            )
            raise SigningKeyError(str(path), "has a passphrase", hint=hint) from error
        try:
            private = read(data, password=secret)
        except (ValueError, TypeError, UnsupportedAlgorithm) as wrong:
            raise SigningKeyError(str(path), "the passphrase is wrong", hint="try again") from wrong
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _no_key(path, "another or a damaged file") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise _no_key(path, type(private).__name__)
    return _signing(private, path.name)


def passphrase_of_environment(path: Path) -> bytes | None:
    """Return the first line of the file that EDGEQ_KEY_PASSPHRASE_FILE names; None where it is not set.

    Raises:
        SigningKeyError: the file is missing or readable by others.
    """
    name = os.environ.get(PASSPHRASE_FILE)
    if not name:
        return None
    content = _content(Path(name))
    _check_mode(Path(name))
    return content.splitlines()[0] if content else b""


def _elsewhere(path: Path) -> SigningKey:
    from edgeq.bundle.ssh_agent import key_of

    return key_of(_public(path, _content(path)), subject=str(path))


def _check_mode(path: Path) -> None:
    if path.stat().st_mode & 0o077:
        raise SigningKeyError(
            str(path),
            "is readable by other users",
            expected="mode 0600",
            got=f"mode {path.stat().st_mode & 0o777:04o}",
            hint=f"chmod 600 {path}; if others may have read it, create a new key and revoke this one",
        )


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
    return SigningKey(public=PublicKey(raw=raw, name=short_name(name)), _sign=private.sign)


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
    return PublicKey(raw=key.public_bytes_raw(), name=short_name(path.name.removesuffix(".pub")))


def _no_key(path: Path, got: str) -> SigningKeyError:
    return SigningKeyError(str(path), expected="an Ed25519 key in OpenSSH's format or PEM", got=got)


def short_name(name: str) -> str:
    """Return a name as devices accept it, short and plain; a file may have any name."""
    kept = re.sub(r"[^A-Za-z0-9._@-]", "-", name).lstrip("._@-")[:63]
    return kept or "key"
