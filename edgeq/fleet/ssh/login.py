"""Log in with a key: which keys are offered and in which order, and the error for a refusal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import paramiko
from paramiko.pkey import UnknownKeyType

from edgeq.errors import AuthenticationFailed, DeviceTimeout, EdgeqError, LinkLost, UsageError
from edgeq.files import expand_user
from edgeq.fleet.ssh.agent_keys import AgentKeys, agent_keys, public_blob

_DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
# OpenSSH closes the connection after six attempts (MaxAuthTries); newer versions then ban the address.
_MAX_TRIES = 5
_LISTED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """The user and the keys of a login.

    Attributes:
        identity: the only key to offer; None offers those below.
        identities: keys in the ssh configuration; by default `~/.ssh/id_*`. A public key, or a key with a
            passphrase, stands for its private key in the ssh agent.
        certificates: for these keys, in addition to `KEY-cert.pub`.
        agent: whether all keys of the ssh agent are offered too.
        agent_socket: of the ssh agent; None takes that of the environment.
    """

    user: str
    identity: Path | None = None
    identities: tuple[Path, ...] = ()
    certificates: tuple[Path, ...] = ()
    agent: bool = True
    agent_socket: str | None = None


@dataclass(slots=True, kw_only=True)
class Attempts:
    """The keys that were offered so far; a refused key is never offered again, in no connection.

    Attributes:
        labels: of the keys, in order.
        most: how many a connection allowed before the server closed it; None if it did not.
        notes: why keys could not be used.
        rsa: the labels of RSA keys.
    """

    labels: list[str] = field(default_factory=list)
    most: int | None = None
    notes: list[str] = field(default_factory=list)
    rsa: list[str] = field(default_factory=list)
    blobs: set[bytes] = field(default_factory=set)


class KeysLeft(Exception):
    """This connection allows no more attempts, and there are more keys."""


def log_in(
    session: paramiko.Transport,
    login: Login,
    *,
    name: str,
    timeout_s: float,
    jump_host: str | None = None,
    attempts: Attempts | None = None,
    more: bool = False,
) -> None:
    """Log in with a key. A refused key is never offered again.

    Args:
        jump_host: the host, if it is a jump host: the device's `identity` is not offered to it.
        attempts: those of earlier connections.
        more: whether there may be another connection.

    Raises:
        AuthenticationFailed: there is no key, the host accepts none, or it asks for more than a key.
        KeysLeft: there are more keys, for another connection.
        UsageError: the identity file is not a private key.
        DeviceTimeout: no response within the time limit.
        LinkLost: the connection was lost.
    """
    tried = attempts if attempts is not None else Attempts()
    count = 0
    allowed: Sequence[str] | None = None
    for label, key, blob in _new_keys(login, tried):
        if count == _MAX_TRIES or not session.is_active():
            if not session.is_active():
                tried.most = count
            if more:
                raise KeysLeft
            break
        count += 1
        tried.labels.append(label)
        tried.blobs.add(blob)
        try:
            remaining = session.auth_publickey(login.user, key)
        except paramiko.BadAuthenticationType as error:
            allowed = error.allowed_types
            break
        except paramiko.AuthenticationException as error:
            if "timeout" in str(error).lower():
                raise _slow(name, timeout_s) from error
            if "rsa" in key.get_name():
                tried.rsa.append(label)
                if not _knows_sha2(session):
                    tried.notes.append(
                        "it may accept RSA signatures with SHA-1 only, which edgeq does not make"
                    )
            continue
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise LinkLost(name, "the connection was lost during the login") from error
        if not remaining:
            return
        if "publickey" not in remaining:
            raise _second_factor(name, login.user, label, remaining, jump_host)
    if (count == 0 or allowed is not None) and session.is_active():
        allowed = _without_key(session, login.user, name, timeout_s)
        if allowed == ():
            return
    if not session.is_active() and count:
        tried.most = count
    raise _refused(name, login.user, tried, allowed, jump_host)


def _without_key(session: paramiko.Transport, user: str, name: str, timeout_s: float) -> Sequence[str] | None:
    """Return the methods that the server allows, none if it requires none, None if that is not known."""
    try:
        return tuple(session.auth_none(user))
    except paramiko.BadAuthenticationType as error:
        return tuple(error.allowed_types)
    except paramiko.AuthenticationException as error:
        if "timeout" in str(error).lower():
            raise _slow(name, timeout_s) from error
        return None
    except (paramiko.SSHException, EOFError, OSError):
        return None  # the server closed the connection after the refusals


def _new_keys(login: Login, tried: Attempts) -> Iterator[tuple[str, paramiko.PKey, bytes]]:
    """Yield the keys that were not offered yet, each once, as label, key and public key."""
    with agent_keys(login.agent_socket) as held:
        for label, key in _keys(login, held):
            blob = key.public_blob.key_blob if key.public_blob is not None else key.asbytes()
            if blob not in tried.blobs:
                yield label, key, blob


def _keys(login: Login, held: AgentKeys) -> Iterator[tuple[str, paramiko.PKey]]:
    if login.identity is not None:
        yield from _of_identity(login.identity, held)
        return
    files = login.identities or tuple(expand_user(Path("~/.ssh", name)) for name in _DEFAULT_KEYS)
    if login.identities:
        yield from _of_files(files, login.certificates, held)
    if login.agent:
        for key in held.keys:
            yield f"agent {key.fingerprint}", key
    if not login.identities:
        yield from _of_files(files, login.certificates, held)


def _of_identity(path: Path, held: AgentKeys) -> Iterator[tuple[str, paramiko.PKey]]:
    try:
        key = load_key(path)
    except UsageError:
        # As OpenSSH does: a public key, or a key with a passphrase, chooses a key of the agent.
        in_agent = held.of(public_blob(path))
        if in_agent is None:
            raise
        yield f"{path} (in the ssh agent)", in_agent
        return
    yield str(path), key


def _of_files(
    files: Iterable[Path], certificates: tuple[Path, ...], held: AgentKeys
) -> Iterator[tuple[str, paramiko.PKey]]:
    for path in files:
        try:
            key = load_key(path)
        except EdgeqError:
            # A key with a passphrase is left to the ssh agent; the error lists the keys offered.
            in_agent = held.of(public_blob(path))
            if in_agent is not None:
                yield f"{path} (in the ssh agent)", in_agent
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
        raise UsageError(
            str(path),
            "identity file not found",
            hint="restore the private key, or name another: --identity, or `identity` in devices.toml",
        ) from error
    except paramiko.PasswordRequiredException as error:
        raise _locked_key(path) from error
    except TypeError as error:  # raised by `cryptography` when a passphrase is missing
        raise _locked_key(path) from error
    except OSError as error:
        raise UsageError(str(path), f"cannot be read: {error.strerror}") from error
    except (paramiko.SSHException, ValueError, UnknownKeyType) as error:
        if public_blob(path) is not None:
            raise UsageError(
                str(path),
                "is a public key, or is not readable as a private one, and the ssh agent does not hold it",
                hint="pass the private key, or load it with `ssh-add`",
            ) from error
        raise UsageError(str(path), "is not a usable private key") from error


def _locked_key(path: Path) -> UsageError:
    return UsageError(
        str(path), "has a passphrase", hint=f"load it with `ssh-add {path}`, then run the same command again"
    )


def _slow(name: str, timeout_s: float) -> DeviceTimeout:
    return DeviceTimeout(
        name,
        f"no response to the login within {timeout_s:.0f} s",
        hint="check the device's load, then try again",
    )


def _knows_sha2(session: paramiko.Transport) -> bool:
    """Return whether the server says that it accepts RSA signatures with SHA-2; old ones do not."""
    extensions: dict[str, bytes] = session.server_extensions  # type: ignore[attr-defined] # not in the stubs
    return b"rsa-sha2-" in extensions.get("server-sig-algs", b"")


def _second_factor(
    name: str, user: str, label: str, remaining: Sequence[str], jump_host: str | None
) -> AuthenticationFailed:
    return AuthenticationFailed(
        name,
        f"accepts the key {label} of {user!r}, and then requires {' or '.join(remaining)}",
        hint=keys_only_hint(jump_host or "the device", user),
    )


def _refused(
    name: str, user: str, tried: Attempts, allowed: Sequence[str] | None, jump_host: str | None
) -> AuthenticationFailed:
    keys = ", ".join(tried.labels[:_LISTED])
    if len(tried.labels) > _LISTED:
        keys += f" and {len(tried.labels) - _LISTED} more"
    problem = f"refuses {user!r} with {keys}" if tried.labels else "no key to log in with"
    if allowed is not None and "publickey" not in allowed:
        return AuthenticationFailed(
            name,
            f"accepts no key of {user!r}; it allows {', '.join(allowed) or 'no method'}",
            hint=keys_only_hint(jump_host or "the device", user),
        )
    if tried.most is not None:
        problem += f"; it allows {tried.most} attempts in a connection (MaxAuthTries)"
    if tried.notes:
        problem += f"; {tried.notes[0]}"
        hint = "make an Ed25519 key with `ssh-keygen -t ed25519`, and add it to ~/.ssh/authorized_keys there"
    elif jump_host is not None:
        hint = jump_host_hint(jump_host, user)
    elif tried.labels:
        hint = f"add the public key to ~/.ssh/authorized_keys of {user} on the device, or check --user"
        if tried.rsa == tried.labels:
            hint += "; a server may refuse RSA keys for their signatures: try an Ed25519 key"
        elif len(tried.labels) > 1:
            hint += "; --identity offers one key only"
    else:
        hint = "pass --identity FILE, or load a key with `ssh-add`"
    return AuthenticationFailed(name, problem, hint=hint)


def keys_only_hint(where: str, user: str) -> str:
    """Return the hint for a server that does not accept a key alone."""
    return (
        f"edgeq logs in with a key alone: allow that for {user} in sshd_config of {where} "
        "(PubkeyAuthentication yes, AuthenticationMethods publickey)"
    )


def jump_host_hint(host: str, user: str) -> str:
    """Return the hint for a refused login at a jump host."""
    return (
        f"load a key that {host} accepts for {user} with `ssh-add`, or set IdentityFile for {host} in "
        "~/.ssh/config; --identity applies to the device only"
    )
