"""The agent's exceptions and their codes: what the host gets when a verb fails."""

from __future__ import annotations

import errno
import os
import sqlite3

from edgeq_agent import wire

NO_SPACE = "EQ501"
UNSUPPORTED = "EQ503"
UNHEALTHY = "EQ504"
DIGEST_MISMATCH = "EQ505"
SHORT_PAYLOAD = "EQ506"
NOTHING_TO_ROLL_BACK_TO = "EQ507"
BUSY = "EQ508"
BLOB_MISSING = "EQ509"
UNKNOWN_MODEL = "EQ510"
DEADLINE = "EQ511"
BAD_REQUEST = "EQ512"
REFUSED_RELEASE = "EQ520"
BOTH_UNHEALTHY = "EQ521"
DISK_FAILED = "EQ522"
DAMAGED = "EQ523"
TRUST_EXPIRED = "EQ524"
NO_TRUSTED_KEY = "EQ530"
UNSIGNED = "EQ531"
UNKNOWN_KEY = "EQ532"
REVOKED_KEY = "EQ533"
BAD_SIGNATURE = "EQ534"
OLD_RELEASE = "EQ535"
BAD_KEY = "EQ536"
TRUST_DAMAGED = "EQ537"
CHANGE_REFUSED = "EQ538"
OTHER_DEVICE = "EQ539"
NOT_STAGED = "EQ551"
IN_SPLIT = "EQ552"
SOAKING_RELEASE = "EQ553"
TOO_MANY_STAGED = "EQ554"
RUNTIME_REFUSED = "EQ556"
NOT_AT_BOOT = "EQ557"
SERVICE_IMPOSSIBLE = "EQ558"
NATIVE_UNSUPPORTED = "EQ559"
EDGETPU_MISSING = "EQ560"
NATIVE_UNREADABLE = "EQ561"
BUG = "EQ590"

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (errno.EACCES, errno.EPERM)
_WRONG_KIND = (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP, errno.ENXIO)
_BROKEN = (errno.EIO, errno.EUCLEAN)


class AgentError(Exception):
    """A failure that the host or the user can act on.

    Args:
        code: one of this module's codes.
        subject: what the failure is about: a blob, a model, a field of the request.
        problem: what is wrong, when expected/got do not say it.
        expected: what was expected.
        got: what was there instead.
        hint: the next thing to do.
        transient: whether the same call can succeed later.
    """

    def __init__(
        self,
        code: str,
        subject: str,
        problem: str = "",
        expected: str | None = None,
        got: str | None = None,
        hint: str | None = None,
        transient: bool = False,
    ) -> None:
        super().__init__(code, subject, problem)
        self.code = code
        self.subject = subject
        self.problem = problem
        self.expected = expected
        self.got = got
        self.hint = hint
        self.transient = transient

    def __str__(self) -> str:
        return one_line(self)

    def message(self) -> wire.Json:
        """Return the last message of a response that failed with this error."""
        return wire.error(
            self.code, self.subject, self.problem, self.expected, self.got, self.hint, self.transient
        )

    @classmethod
    def from_message(cls, body: wire.Json) -> AgentError:
        """Return the error that a child process reported (the `error` object of its last message)."""
        return cls(
            str(body.get("code", BUG)),
            str(body.get("subject", "")),
            str(body.get("problem") or ""),
            body.get("expected"),
            body.get("got"),
            body.get("hint"),
            bool(body.get("transient")),
        )


class InferenceError(AgentError):
    """Base of the errors that the SDK raises on purpose; each class has its code and its name in telemetry.

    Args:
        subject: what the failure is about: a model, an input, an address.
        problem: what is wrong, when expected/got do not say it.
        expected: what would have been right.
        got: what was found.
        hint: the next thing to do.
    """

    kind_code = "EQ545"
    kind = "runtime"

    def __init__(
        self,
        subject: str,
        problem: str = "",
        expected: str | None = None,
        got: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(self.kind_code, subject, problem, expected, got, hint)


def one_line(error: AgentError) -> str:
    """Return `EQ540: subject: problem: expected ..., got ... (hint)`, without the parts that are empty."""
    parts = [f"{error.code}: {error.subject}"]
    if error.problem:
        parts.append(error.problem)
    if error.expected is not None:
        parts.append(f"expected {error.expected}" + (f", got {error.got}" if error.got is not None else ""))
    text = ": ".join(parts)
    return f"{text} ({error.hint})" if error.hint else text


def no_space(subject: str, needed_bytes: int, free_bytes: int) -> AgentError:
    """Return the error for content that does not fit (EQ501)."""
    return AgentError(
        NO_SPACE,
        subject,
        "not enough space on the device",
        expected=f"{needed_bytes} bytes free",
        got=f"{free_bytes} bytes free",
        hint="free some space on the device, then run the same command again",
    )


def no_inodes(subject: str, needed: int, free: int) -> AgentError:
    """Return the error for more files than the file system can hold (EQ501)."""
    return AgentError(
        NO_SPACE,
        subject,
        "not enough inodes on the device: there is space, but not for as many files",
        expected=f"{needed} inodes free",
        got=f"{free} inodes free",
        hint="remove small files on the device, then run the same command again",
    )


def from_import(error: Exception) -> AgentError | None:
    """Map a module that the device's Python lacks; None for a module of the agent, which is a bug."""
    if not isinstance(error, ImportError) or not error.name or error.name.startswith("edgeq_agent"):
        return None
    return AgentError(
        UNSUPPORTED,
        "Python",
        f"lacks the module {error.name}: {error}",
        hint="install the complete Python of the device's system, or set another: `python` in devices.toml",
    )


def from_os(error: Exception) -> AgentError | None:
    """Map an error of the operating system or of SQLite; None for one that is a bug of the agent."""
    if isinstance(error, OSError):
        subject = str(error.filename or "the device")
        if error.errno in _FULL:
            return AgentError(
                NO_SPACE,
                subject,
                f"not enough space on the device: {error.strerror}",
                hint="free some space on the device, then run the same command again",
            )
        if error.errno == errno.EROFS:
            return AgentError(
                UNSUPPORTED,
                subject,
                f"the operating system refuses access: {error.strerror}",
                hint="check the device's card or disk (`dmesg`), and mount it so that it can be written",
            )
        if error.errno in _REFUSED:
            return AgentError(
                UNSUPPORTED,
                subject,
                f"the operating system refuses access: {error.strerror}",
                hint=_allow(subject),
            )
        if error.errno in _WRONG_KIND:
            return AgentError(
                DAMAGED,
                subject,
                f"is of the wrong kind: {error.strerror}",
                hint=f"run `mv {subject} {subject}.old` on the device, then the same command again",
            )
        if error.errno in _BROKEN:
            return AgentError(
                DISK_FAILED,
                subject,
                f"the device's disk reports an error: {error.strerror}",
                hint="check the device's card or disk (`dmesg`), replace it, and deploy again",
            )
    if isinstance(error, sqlite3.OperationalError):
        return _from_sqlite(str(error))
    return None


def _from_sqlite(text: str) -> AgentError | None:
    subject = "outbox.db"
    if "is full" in text:
        return AgentError(NO_SPACE, subject, f"not enough space on the device: {text}")
    if "locked" in text:
        hint = "try again in a moment"
        return AgentError(BUSY, subject, f"another process uses it: {text}", hint=hint, transient=True)
    if "I/O" in text:
        hint = "check the device's card or disk (`dmesg`), replace it, and deploy again"
        return AgentError(DISK_FAILED, subject, f"the device's disk reports an error: {text}", hint=hint)
    if "readonly" in text or "unable to open" in text:
        # SQLite does not say which: the disk is read-only, or the file is another user's.
        hint = f"check whether the device's disk is read-only (`mount`); else run `{_give('~/.edgeq')}` there"
        return AgentError(UNSUPPORTED, subject, f"the operating system refuses access: {text}", hint=hint)
    return None


def _allow(path: str) -> str:
    """Return the hint for a path that this process's user may not use."""
    if path.startswith(("/dev/", "/proc/", "/sys/", "/etc/", "/usr/")):
        # They belong to the system: their owner must not change.
        return f"check the permissions of {path} on the device (`ls -l {path}`)"
    return f"run `{_give(path)}` on the device, or set EDGEQ_HOME"


def _give(path: str | bytes | int | None) -> str:
    """Return the command that makes this process's user the owner of a path."""
    shown = path.decode("utf-8", "replace") if isinstance(path, bytes) else str(path or "~/.edgeq")
    return f"sudo chown -R {os.getuid()} {shown}"
