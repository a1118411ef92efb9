"""Logging in: which keys are offered, in which order, and how a refusal reads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import paramiko
from paramiko.pkey import UnknownKeyType

from edgeq.errors import AuthenticationFailed, DeviceTimeout, EdgeqError, LinkLost, UsageError

_DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
# OpenSSH ends the connection after six tries (MaxAuthTries), and newer ones ban the address for a while.
_MAX_TRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """Who logs in, and with what.

    Attributes:
        identity: the one key to use; None means those below.
        identities: keys that the ssh configuration names; without any, `~/.ssh/id_*`.
        certificates: for these keys, beside `KEY-cert.pub`.
        agent: whether the SSH agent's keys are offered too.
    """

    user: str
    identity: Path | None = None
    identities: tuple[Path, ...] = ()
    certificates: tuple[Path, ...] = ()
    agent: bool = True


def log_in(
    session: paramiko.Transport, login: Login, *, name: str, timeout_s: float, on_the_way: str | None = None
) -> None:
    """Log in with a key. A refusal is final: it is never tried again with the same key.

    Args:
        on_the_way: the machine, when it is not the device: the device's `identity` is not for it.

    Raises:
        AuthenticationFailed: no key, or none that the device takes.
        UsageError: the identity file cannot be read as a private key.
        DeviceTimeout: no answer within the time.
        LinkLost: the connection ended.
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
                raise DeviceTimeout(name, f"no answer to the login within {timeout_s:.0f} s") from error
            if not session.is_active():
                break
            continue
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise LinkLost(name, "the connection ended during the login") from error
        if not remaining:
            return
    raise _refused(name, user, offered, on_the_way)


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
            # A default key with a passphrase is the agent's business; the refusal names what was offered.
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
    """Return the private key of a file.

    Raises:
        UsageError: the file is not there, is no private key, or has a passphrase.
    """
    try:
        return paramiko.PKey.from_path(path)
    except FileNotFoundError as error:
        raise UsageError(str(path), "no such identity file") from error
    except paramiko.PasswordRequiredException as error:
        raise _locked_key(path) from error
    except TypeError as error:  # how `cryptography` says that a passphrase is missing
        raise _locked_key(path) from error
    except OSError as error:
        raise UsageError(str(path), f"cannot be read: {error.strerror}") from error
    except (paramiko.SSHException, ValueError, UnknownKeyType) as error:
        raise UsageError(str(path), "is no private key that can be used") from error


def _locked_key(path: Path) -> UsageError:
    return UsageError(str(path), "has a passphrase", hint=f"`ssh-add {path}`, and leave --identity out")


def _refused(name: str, user: str, offered: list[str], on_the_way: str | None) -> AuthenticationFailed:
    problem = f"refuses {user!r} with {', '.join(offered)}" if offered else "there is no key to log in with"
    if on_the_way is not None:
        hint = hint_on_the_way(on_the_way, user)
    elif offered:
        hint = f"put the public key into the device's ~/.ssh/authorized_keys of {user}, or check --user"
    else:
        hint = "give --identity FILE, or load one with `ssh-add`"
    return AuthenticationFailed(name, problem, hint=hint)


def hint_on_the_way(host: str, user: str) -> str:
    """Return what lets somebody log in at a machine on the way to a device."""
    return (
        f"load a key that {host} takes from {user} with `ssh-add`, or name it as its IdentityFile in "
        "~/.ssh/config: --identity is for the device alone"
    )
