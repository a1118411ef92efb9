"""Log in with a key: which keys are offered and in which order, and the error for a refusal."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import paramiko
from paramiko.pkey import UnknownKeyType

from edgeq.errors import AuthenticationFailed, DeviceTimeout, EdgeqError, LinkLost, UsageError

_DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
# OpenSSH closes the connection after six attempts (MaxAuthTries); newer versions then ban the address.
_MAX_TRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """The user and the keys of a login.

    Attributes:
        identity: the only key to offer; None offers those below.
        identities: keys in the ssh configuration; by default `~/.ssh/id_*`.
        certificates: for these keys, in addition to `KEY-cert.pub`.
        agent: whether the keys of the ssh agent are offered too.
    """

    user: str
    identity: Path | None = None
    identities: tuple[Path, ...] = ()
    certificates: tuple[Path, ...] = ()
    agent: bool = True


def log_in(
    session: paramiko.Transport, login: Login, *, name: str, timeout_s: float, jump_host: str | None = None
) -> None:
    """Log in with a key. A refused key is never offered again.

    Args:
        jump_host: the host, if it is a jump host: the device's `identity` is not offered to it.

    Raises:
        AuthenticationFailed: there is no key, or the host accepts none.
        UsageError: the identity file is not a private key.
        DeviceTimeout: no response within the time limit.
        LinkLost: the connection was lost.
    """
    user = login.user
    offered: list[str] = []
    for label, key in _keys(login):
        if len(offered) == _MAX_TRIES:
            break
        offered.append(label)
        try:
            remaining = session.auth_publickey(user, key)
        except paramiko.AuthenticationException as error:
            if "timeout" in str(error).lower():
                raise DeviceTimeout(name, f"no response to the login within {timeout_s:.0f} s") from error
            if not session.is_active():
                break
            continue
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise LinkLost(name, "the connection was lost during the login") from error
        if not remaining:
            return
    raise _refused(name, user, offered, jump_host)


def _keys(login: Login) -> Iterator[tuple[str, paramiko.PKey]]:
    if login.identity is not None:
        yield str(login.identity), load_key(login.identity)
        return
    files = login.identities or tuple(Path("~/.ssh", name).expanduser() for name in _DEFAULT_KEYS)
    if login.identities:
        yield from _of_files(files, login.certificates)
    if login.agent and os.environ.get("SSH_AUTH_SOCK"):
        agent = paramiko.Agent()
        try:
            for key in agent.get_keys():
                yield f"agent {key.fingerprint}", key
        finally:
            agent.close()
    if not login.identities:
        yield from _of_files(files, login.certificates)


def _of_files(files: Iterable[Path], certificates: tuple[Path, ...]) -> Iterator[tuple[str, paramiko.PKey]]:
    for path in files:
        if not path.is_file():
            continue
        try:
            key = load_key(path)
        except EdgeqError:
            # A default key with a passphrase is left to the ssh agent; the error lists the keys offered.
            continue
        for certificate in certificates:
            if _belongs(certificate, key):
                certified = load_key(path)
                certified.load_certificate(str(certificate))
                yield f"{path} with {certificate}", certified
        yield str(path), key


def _belongs(certificate: Path, key: paramiko.PKey) -> bool:
    try:
        type_, _, blob = certificate.read_text(encoding="utf-8").partition(" ")
    except (OSError, UnicodeDecodeError):
        return False
    return type_.startswith(key.get_name()) and bool(blob)


def load_key(path: Path) -> paramiko.PKey:
    """Return the private key in a file.

    Raises:
        UsageError: the file is missing, is not a private key, or has a passphrase.
    """
    try:
        return paramiko.PKey.from_path(path)
    except FileNotFoundError as error:
        raise UsageError(str(path), "identity file not found") from error
    except paramiko.PasswordRequiredException as error:
        raise _locked_key(path) from error
    except TypeError as error:  # raised by `cryptography` when a passphrase is missing
        raise _locked_key(path) from error
    except OSError as error:
        raise UsageError(str(path), f"cannot be read: {error.strerror}") from error
    except (paramiko.SSHException, ValueError, UnknownKeyType) as error:
        raise UsageError(str(path), "is not a usable private key") from error


def _locked_key(path: Path) -> UsageError:
    return UsageError(
        str(path), "has a passphrase", hint=f"load it with `ssh-add {path}`, and omit --identity"
    )


def _refused(name: str, user: str, offered: list[str], jump_host: str | None) -> AuthenticationFailed:
    problem = f"refuses {user!r} with {', '.join(offered)}" if offered else "no key to log in with"
    if jump_host is not None:
        hint = jump_host_hint(jump_host, user)
    elif offered:
        hint = f"add the public key to ~/.ssh/authorized_keys of {user} on the device, or check --user"
    else:
        hint = "pass --identity FILE, or load a key with `ssh-add`"
    return AuthenticationFailed(name, problem, hint=hint)


def jump_host_hint(host: str, user: str) -> str:
    """Return the hint for a refused login at a jump host."""
    return (
        f"load a key that {host} accepts for {user} with `ssh-add`, or set IdentityFile for {host} in "
        "~/.ssh/config; --identity applies to the device only"
    )
