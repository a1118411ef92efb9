"""Compare a response with its request: an answer about something else than what was asked is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edgeq.errors import AgentProtocolError

Body = Mapping[str, Any]

# Fields that a response repeats from its request, whatever the verb. An older agent may leave one out.
_REPEATED = ("model", "release", "digest", "dry_run", "threads")


def check_answer(verb: str, request: Body, result: Body, *, device: str) -> None:
    """Refuse a response that is about another model, release, experiment or blob than the request.

    Args:
        request: what was sent.
        result: the response as it arrived, not parsed yet.

    Raises:
        AgentProtocolError: EQ502; names the field.
    """
    for name in _REPEATED:
        if request.get(name) is not None:
            _same(device, verb, name, request[name], result.get(name))
    check = _OF_VERB.get(verb)
    if check is not None:
        check(device, verb, request, result)


def _same(device: str, verb: str, field: str, expected: Any, got: Any) -> None:
    if got is not None and (got != expected or type(got) is not type(expected)):
        raise AgentProtocolError(
            device,
            f"{verb}: {field} is not what was asked for",
            expected=str(expected)[:80],
            got=repr(got)[:80],
        )


def _rollback(device: str, verb: str, request: Body, result: Body) -> None:
    # `from` is the release to leave: it cannot be the one that serves after a change.
    if request.get("from") is not None and result.get("changed") is True:
        if result.get("release") == request["from"]:
            raise AgentProtocolError(
                device, f"{verb}: release", expected="the one before", got=repr(result.get("release"))[:80]
            )
        _same(device, verb, "previous", request["from"], result.get("previous"))


def _missing(device: str, verb: str, request: Body, result: Body) -> None:
    asked = set(request["blobs"])
    for field in ("missing", "begun"):
        _subset(device, verb, field, asked, result.get(field))


def _upload(device: str, verb: str, request: Body, result: Body) -> None:
    asked = {blob["sha256"] for blob in request["blobs"]}
    blobs = result.get("blobs")
    if isinstance(blobs, list):
        stored = [blob.get("sha256") for blob in blobs if isinstance(blob, Mapping)]
        _subset(device, verb, "blobs", asked, stored)
        if len(stored) != len(request["blobs"]):
            raise AgentProtocolError(
                device, f"{verb}: blobs", expected=f"{len(request['blobs'])} of them", got=str(len(stored))
            )


def _subset(device: str, verb: str, field: str, asked: set[str], got: Any) -> None:
    for item in got if isinstance(got, list) else ():
        if not isinstance(item, str) or item not in asked:
            raise AgentProtocolError(
                device, f"{verb}: {field}", expected="blobs that were asked for", got=repr(item)[:80]
            )


def _split(device: str, verb: str, request: Body, result: Body) -> None:
    split = result.get("split")
    if request.get("experiment") is not None and isinstance(split, Mapping):
        _same(device, verb, "split.experiment", request["experiment"], split.get("experiment"))


def _telemetry(device: str, verb: str, request: Body, result: Body) -> None:
    sent = result.get("sent")
    if type(sent) is int and sent > request["limit"]:
        raise AgentProtocolError(
            device, f"{verb}: sent", expected=f"at most {request['limit']}", got=str(sent)
        )


_OF_VERB: Mapping[str, Callable[[str, str, Body, Body], None]] = {
    "rollback": _rollback,
    "missing": _missing,
    "upload": _upload,
    "split": _split,
    "telemetry": _telemetry,
}
