"""The audit of changes on devices: an entry before the change and one with its result after it.

Every call of the agent passes here (`AgentClient.call`). A verb that is not listed below cannot be called.
"""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from edgeq.command_line import command_line
from edgeq.errors import EdgeqError, StoreError
from edgeq.store import Store, default_workspace
from edgeq.values import Device

Request = Mapping[str, Any]

STARTED = "started"


def _always(_request: Request) -> bool:
    return True


# They leave what a device serves, trusts and starts as it is. `infer` records telemetry, and `telemetry`
# removes what the host has stored.
READING = frozenset({"probe", "missing", "status", "logs", "infer", "bench", "telemetry"})
# The others, each with whether a request changes the device.
CHANGING: Mapping[str, Callable[[Request], bool]] = {
    "put": _always,
    "upload": _always,
    "runtime": _always,
    "activate": _always,
    "rollback": _always,
    "soak": _always,
    "recover": _always,
    "pin": _always,
    "unpin": _always,
    "stage": _always,
    "unstage": _always,
    "split": _always,
    "prune": lambda request: request.get("dry_run") is not True,
    "trust": bool,  # with an empty request it shows the keys
    "service": lambda request: request.get("action", "status") != "status",
}
# What an entry shows of a request: what it is about, and no content.
_SHOWN = ("model", "release", "from", "digest", "sha256", "experiment", "kind", "models", "action", "soak_s")


@dataclass(kw_only=True)
class Outcome:
    """How a change ended; whoever makes it may set another text."""

    result: str = "done"


def changes(verb: str, request: Request) -> bool:
    """Return whether a call changes the device.

    Raises:
        ValueError: the verb is not listed.
    """
    if verb in READING:
        return False
    if verb not in CHANGING:
        raise ValueError(f"the verb {verb!r} is neither in READING nor in CHANGING")
    return CHANGING[verb](request)


def about(request: Request) -> dict[str, Any]:
    """Return what an entry shows of a request."""
    return {name: request[name] for name in _SHOWN if request.get(name) is not None}


@contextmanager
def audited(device: Device, action: str, body: Mapping[str, Any]) -> Iterator[Outcome]:
    """Record a change of a device, in the store of its workspace: before it, and with its result after it.

    Raises:
        StoreError: before the change: the store cannot be written, and nothing is changed.
    """
    number = _record(device, action, body, STARTED)
    outcome = Outcome()
    try:
        yield outcome
    except BaseException as error:
        try:
            _record(device, action, {**body, "of": number}, _result_of(error))
        except StoreError as problem:
            # The change's own error matters more; the entry before it remains.
            error.add_note(f"its result is not in the audit log: {problem.message}")
        raise
    _record(device, action, {**body, "of": number}, outcome.result)


def note(device: Device, action: str, body: Mapping[str, Any]) -> str:
    """Record a change that is already done; return why that failed, or ""."""
    try:
        _record(device, action, body, "done")
    except StoreError as error:
        return error.message
    return ""


def actor() -> str:
    """Return who runs this process, also behind sudo."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container without an entry for this user
        user = f"uid {os.getuid()}"
    behind = os.environ.get("SUDO_USER")
    return f"{behind} as {user}" if behind and behind != user else user


def _record(device: Device, action: str, body: Mapping[str, Any], result: str) -> int:
    with Store.open(device.workspace or default_workspace()) as store:
        return store.record_audit(
            actor(),
            action,
            device.name,
            body,
            host=socket.gethostname(),
            command=command_line(),
            result=result,
        )


def _result_of(error: BaseException) -> str:
    if isinstance(error, EdgeqError):
        return f"failed: {error.reported_code}"
    return "interrupted" if isinstance(error, KeyboardInterrupt) else f"failed: {type(error).__name__}"
