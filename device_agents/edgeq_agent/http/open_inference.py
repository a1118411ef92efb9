"""The Open Inference Protocol v2 over HTTP, as a function from a request to an answer.

`GET /v2`, `/v2/health/live`, `/v2/health/ready`, `/v2/models/NAME[/versions/ID]`, `.../ready`, and
`POST /v2/models/NAME[/versions/ID]/infer`, with the binary tensor data extension. A version is a release id.
A quantized input takes real values (FP32) or the model's own integers; outputs are real values unless the
request's parameter `raw` is true. The parameter `key` says whose call it is, for an A/B split.

An extension of ours: with the parameter `ticket` true the answer's parameters have a `ticket`, and
`POST /v2/models/NAME/feedback` with {"ticket": ..., "correct": true or false} says later whether it was
right.
"""

from __future__ import annotations

import json
import re
from typing import Any, Mapping, NamedTuple
from urllib.parse import unquote

from edgeq_agent import __version__
from edgeq_agent.errors import AgentError
from edgeq_agent.http.errors import Refused, refusal
from edgeq_agent.http.tensors import described, flag, inputs_of, outputs_to, parameters
from edgeq_agent.sdk.runtime import Runtime
from edgeq_agent.wire import Json

HEADER_LENGTH = "Inference-Header-Content-Length"
_LENGTH = HEADER_LENGTH.lower()
_MODEL = re.compile(
    r"/v2/models/(?P<name>[^/]+)(/versions/(?P<version>[^/]+))?(?P<what>/ready|/infer|/feedback)?"
)
_PARAMETERS = ("binary_data_output", "key", "raw", "deadline_s", "ticket")


class Reply(NamedTuple):
    """An answer: its status, body, and headers beyond the length."""

    status: int
    body: bytes
    headers: dict[str, str]


def as_json(status: int, body: Json) -> Reply:
    """Return an answer that is one JSON document."""
    return Reply(
        status, json.dumps(body, allow_nan=False).encode() + b"\n", {"Content-Type": "application/json"}
    )


class Service:
    """Answers requests with the runtimes of some models.

    Attributes:
        ending: set while the server stops: it is alive, but not ready any more.
    """

    def __init__(self, runtimes: Mapping[str, Runtime], missing: Mapping[str, str]) -> None:
        self._runtimes = runtimes
        self._missing = missing
        self.ending = False

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Return the answer to one request.

        Args:
            headers: their names in lower case.

        Raises:
            Refused: with the status that says why.
        """
        path = unquote(path.partition("?")[0])
        fixed = {"/v2": self._server, "/v2/health/live": self._live, "/v2/health/ready": self._ready}
        found = _MODEL.fullmatch(path.rstrip("/") or "/")
        if path.rstrip("/") in fixed:
            _only("GET", method)
            return fixed[path.rstrip("/")]()
        if found is None:
            raise Refused(404, f"no such path: {path[:200]}")
        name, version, what = found["name"], found["version"], found["what"]
        _only("POST" if what in ("/infer", "/feedback") else "GET", method)
        if what == "/ready":
            return self._model_ready(name, version)
        runtime = self._runtime(name)
        try:
            if what == "/infer":
                return _infer(runtime, name, version, headers, body)
            if what == "/feedback":
                return _feedback(runtime, name, version, headers, body)
            return _metadata(runtime, name, version)
        except AgentError as error:
            raise refusal(error) from error

    def _server(self) -> Reply:
        return as_json(
            200,
            {
                "name": "edgeq-agent",
                "version": __version__,
                "extensions": ["binary_tensor_data", "edgeq_feedback"],
            },
        )

    def _live(self) -> Reply:
        return as_json(200, {"live": True})

    def _ready(self) -> Reply:
        ready = not (self._missing or self.ending)
        # The protocol wants 4xx for "no" here.
        return as_json(200 if ready else 400, {"ready": ready})

    def _model_ready(self, name: str, version: str | None) -> Reply:
        runtime = self._runtime(name)
        try:
            ready = not self.ending and (version is None or version in runtime.releases.values())
        except AgentError as error:
            raise refusal(error) from error
        return as_json(200 if ready else 400, {"name": name, "ready": ready})

    def _runtime(self, name: str) -> Runtime:
        if name in self._missing:
            raise Refused(400, f"model {name!r} is not ready: {self._missing[name]}")
        if name not in self._runtimes:
            raise Refused(404, f"no model {name!r}; this server has " + ", ".join(self._runtimes))
        return self._runtimes[name]


def _only(allowed: str, method: str) -> None:
    if method != allowed:
        raise Refused(405, f"method {method}: expected {allowed}")


def _metadata(runtime: Runtime, name: str, version: str | None) -> Reply:
    serving = list(dict.fromkeys(runtime.releases.values()))
    if version is not None and version not in serving:
        raise Refused(404, f"no version {version!r} of {name!r}; one of " + ", ".join(serving))
    inputs, outputs = runtime.describe(version)
    return as_json(
        200,
        {
            "name": name,
            "versions": serving,
            "platform": "tflite",
            "inputs": [described(info, real=True) for info in inputs],
            "outputs": [described(info, real=True) for info in outputs],
        },
    )


def _infer(
    runtime: Runtime, name: str, version: str | None, headers: Mapping[str, str], body: bytes
) -> Reply:
    request, binary, declared = _split(headers, body)
    asked = parameters(request, "the request")
    unknown = sorted(set(asked) - set(_PARAMETERS))
    if unknown:
        raise Refused(
            400, f"parameters: {unknown[0]!r} is not supported; known are " + ", ".join(_PARAMETERS)
        )
    raw = flag(asked, "raw", "the request")
    every_binary = flag(asked, "binary_data_output", "the request")
    inputs = inputs_of(request, binary, declared)
    key = asked.get("key")
    if isinstance(key, (dict, list)):
        raise Refused(400, "parameters: key: expected a text or a number")
    ticket = flag(asked, "ticket", "the request")
    found = runtime.run(inputs, key, raw, asked.get("deadline_s"), release=version, ticket=ticket)
    entries, data = outputs_to(_wanted(request, found.outputs, every_binary))
    answer: Json = {"model_name": name, "model_version": found.release, "outputs": entries}
    more = {"arm": found.arm, "ticket": found.ticket}
    if any(value is not None for value in more.values()):
        answer["parameters"] = {name: value for name, value in more.items() if value is not None}
    if isinstance(request.get("id"), str):
        answer["id"] = request["id"]
    if not any("parameters" in entry for entry in entries):
        return as_json(200, answer)
    head = json.dumps(answer, allow_nan=False).encode()
    return Reply(
        200, head + data, {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(head))}
    )


def _feedback(
    runtime: Runtime, name: str, version: str | None, headers: Mapping[str, str], body: bytes
) -> Reply:
    if version is not None:
        raise Refused(404, "feedback: a ticket knows its version; leave /versions/ID out")
    request, _, _ = _split(headers, body)
    unknown = sorted(set(request) - {"ticket", "correct"})
    if unknown:
        raise Refused(400, f"feedback: {unknown[0][:60]!r} is not supported; known are ticket, correct")
    if not isinstance(request.get("correct"), bool) or not isinstance(request.get("ticket"), str):
        raise Refused(400, "feedback: expected a text `ticket` and true or false as `correct`")
    runtime.feedback(request["ticket"], request["correct"])
    return as_json(200, {"model_name": name, "counted": True})


def _split(headers: Mapping[str, str], body: bytes) -> tuple[Json, bytes, bool]:
    """Return the JSON part, the bytes after it, and whether the request said where it ends."""
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, f"Content-Encoding {headers['content-encoding']!r}: expected none")
    stated = headers.get(_LENGTH)
    length = len(body)
    if stated is not None:
        if not (stated.isascii() and stated.isdigit()) or len(stated) > 18:
            raise Refused(400, f"{HEADER_LENGTH}: expected a number of bytes, got {stated[:40]!r}")
        length = int(stated)
        if length > len(body):
            raise Refused(400, f"{HEADER_LENGTH}: {length} is beyond the body's {len(body)} bytes")
    try:
        request = json.loads(body[:length].decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is no JSON: {error}"[:300]) from error
    if not isinstance(request, dict):
        raise Refused(400, "the body: expected a JSON object")
    return request, body[length:], stated is not None


def _wanted(request: Json, outputs: dict[str, Any], every_binary: bool) -> list[tuple[str, Any, bool]]:
    entries = request.get("outputs")
    if entries is None:
        return [(name, array, every_binary) for name, array in outputs.items()]
    if not isinstance(entries, list):
        raise Refused(400, "outputs: expected a list")
    found = []
    for entry in entries:
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or name not in outputs:
            raise Refused(400, f"output {name!r}: expected one of " + ", ".join(outputs))
        asked = parameters(entry, f"output {name!r}")
        unknown = sorted(set(asked) - {"binary_data"})
        if unknown:
            raise Refused(400, f"output {name!r}: parameter {unknown[0]!r} is not supported")
        found.append((name, outputs[name], flag(asked, "binary_data", f"output {name!r}", every_binary)))
    return found
