"""Logging in: which keys are offered, in which order, and how a refusal reads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import paramiko
from paramiko.pkey import UnknownKeyType

from edgeq.errors import AuthenticationFailed, DeviceTimeout, EdgeqError, LinkLost, UsageError

_DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
# OpenSSH ends the connection after six tries (MaxAuthTries), and newer ones ban the address for a while.
_MAX_TRIES = 5


def log_in(
    session: paramiko.Transport, *, name: str, user: str, identity: Path | None, timeout_s: float
) -> None:
    """Log in with a key. A refusal is final: it is never tried again with the same key.

    Args:
        identity: the one key to use; None means the SSH agent's keys, then `~/.ssh/id_*`.

    Raises:
        AuthenticationFailed: no key, or none that the device takes.
        UsageError: the identity file cannot be read as a private key.
        DeviceTimeout: no answer within the time.
        LinkLost: the connection ended.
    """
    offered: list[str] = []
    for label, key in _keys(name, identity):
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
    raise _refused(name, user, offered)


def _keys(name: str, identity: Path | None) -> Iterator[tuple[str, paramiko.PKey]]:
    if identity is not None:
        yield str(identity), load_key(identity)
        return
    if os.environ.get("SSH_AUTH_SOCK"):
        agent = paramiko.Agent()
        try:
            for key in agent.get_keys():
                yield f"agent {key.fingerprint}", key
        finally:
            agent.close()
    for file_name in _DEFAULT_KEYS:
        path = Path("~/.ssh", file_name).expanduser()
        if path.is_file():
            try:
                yield str(path), load_key(path)
            except EdgeqError:
                # A default key with a passphrase is the agent's business; the refusal names what was offered.
                continue


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


def _refused(name: str, user: str, offered: list[str]) -> AuthenticationFailed:
    if not offered:
        return AuthenticationFailed(
            name, "there is no key to log in with", hint="give --identity FILE, or load one with `ssh-add`"
        )
    return AuthenticationFailed(
        name,
        f"refuses {user!r} with {', '.join(offered)}",
        hint=f"put the public key into the device's ~/.ssh/authorized_keys of {user}, or check --user",
    )
