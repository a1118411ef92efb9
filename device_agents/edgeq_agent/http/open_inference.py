"""The Open Inference Protocol v2 over HTTP: a function from a request to a response.

`GET /v2`, `/v2/health/live`, `/v2/health/ready`, `/v2/models/NAME[/versions/ID]`, `.../ready`, and
`POST /v2/models/NAME[/versions/ID]/infer`, with the binary tensor data extension. A version is a release id.
A quantized input accepts real values (FP32) or the model's own integers. Outputs are real values unless the
request's parameter `raw` is true. The parameter `key` identifies the caller for an A/B split.

Extension: with the parameter `ticket` true, the response's parameters have a `ticket`. Later,
`POST /v2/models/NAME/feedback` with {"ticket": ..., "correct": true or false} reports whether the output was
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
from edgeq_agent.http.tensors import describe, flag, inputs_of, outputs_to, parameters
from edgeq_agent.sdk.runtime import Runtime
from edgeq_agent.wire import Json

HEADER_LENGTH = "Inference-Header-Content-Length"
_LENGTH = HEADER_LENGTH.lower()
_MODEL = re.compile(
    r"/v2/models/(?P<name>[^/]+)(/versions/(?P<version>[^/]+))?(?P<action>/ready|/infer|/feedback)?"
)
_PARAMETERS = ("binary_data_output", "key", "raw", "deadline_s", "ticket")


class Reply(NamedTuple):
    """An HTTP response: its status, its body, and its headers without the length."""

    status: int
    body: bytes
    headers: dict[str, str]


def as_json(status: int, body: Json) -> Reply:
    """Return a response with a JSON document as its body."""
    return Reply(
        status, json.dumps(body, allow_nan=False).encode() + b"\n", {"Content-Type": "application/json"}
    )


class Service:
    """Responds to requests with the runtimes of the models.

    Args:
        runtimes: by model.
        missing: models that could not be loaded, with the reason.

    Attributes:
        ending: set while the server stops: it is alive, but no longer ready.
    """

    def __init__(self, runtimes: Mapping[str, Runtime], missing: Mapping[str, str]) -> None:
        self._runtimes = runtimes
        self._missing = missing
        self.ending = False

    def respond(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Return the response to one request.

        Args:
            headers: by their names in lower case.

        Raises:
            Refused: the request cannot be served.
        """
        path = unquote(path.partition("?")[0])
        fixed = {"/v2": self._server, "/v2/health/live": self._live, "/v2/health/ready": self._ready}
        route = _MODEL.fullmatch(path.rstrip("/") or "/")
        if path.rstrip("/") in fixed:
            _only("GET", method)
            return fixed[path.rstrip("/")]()
        if route is None:
            raise Refused(404, f"no such path: {path[:200]}")
        name, version, action = route["name"], route["version"], route["action"]
        _only("POST" if action in ("/infer", "/feedback") else "GET", method)
        if action == "/ready":
            return self._model_ready(name, version)
        runtime = self._runtime(name)
        try:
            if action == "/infer":
                return _infer(runtime, name, version, headers, body)
            if action == "/feedback":
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
        # The protocol requires a 4xx status when not ready.
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
            "inputs": [describe(info, real=True) for info in inputs],
            "outputs": [describe(info, real=True) for info in outputs],
        },
    )


def _infer(
    runtime: Runtime, name: str, version: str | None, headers: Mapping[str, str], body: bytes
) -> Reply:
    request, binary, declared = _split(headers, body)
    options = parameters(request, "the request")
    unknown = sorted(set(options) - set(_PARAMETERS))
    if unknown:
        raise Refused(
            400, f"parameters: {unknown[0]!r} is not supported; expected one of " + ", ".join(_PARAMETERS)
        )
    raw = flag(options, "raw", "the request")
    every_binary = flag(options, "binary_data_output", "the request")
    inputs = inputs_of(request, binary, declared)
    key = options.get("key")
    if isinstance(key, (dict, list)):
        raise Refused(400, "parameters: key: expected a text or a number")
    ticket = flag(options, "ticket", "the request")
    result = runtime.run(inputs, key, raw, options.get("deadline_s"), release=version, ticket=ticket)
    entries, data = outputs_to(_select(request, result.outputs, every_binary))
    response: Json = {"model_name": name, "model_version": result.release, "outputs": entries}
    extra = {"arm": result.arm, "ticket": result.ticket}
    if any(value is not None for value in extra.values()):
        response["parameters"] = {name: value for name, value in extra.items() if value is not None}
    if isinstance(request.get("id"), str):
        response["id"] = request["id"]
    if not any("parameters" in entry for entry in entries):
        return as_json(200, response)
    head = json.dumps(response, allow_nan=False).encode()
    return Reply(
        200, head + data, {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(head))}
    )


def _feedback(
    runtime: Runtime, name: str, version: str | None, headers: Mapping[str, str], body: bytes
) -> Reply:
    if version is not None:
        raise Refused(404, "feedback: the ticket identifies the version; leave out /versions/ID")
    request, _, _ = _split(headers, body)
    unknown = sorted(set(request) - {"ticket", "correct"})
    if unknown:
        raise Refused(400, f"feedback: {unknown[0][:60]!r} is not supported; expected ticket and correct")
    if not isinstance(request.get("correct"), bool) or not isinstance(request.get("ticket"), str):
        raise Refused(400, "feedback: expected a text `ticket` and true or false as `correct`")
    runtime.feedback(request["ticket"], request["correct"])
    return as_json(200, {"model_name": name, "counted": True})


def _split(headers: Mapping[str, str], body: bytes) -> tuple[Json, bytes, bool]:
    """Return the JSON part, the bytes after it, and whether a header gave the JSON part's length."""
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
        raise Refused(400, f"the body is not JSON: {error}"[:300]) from error
    if not isinstance(request, dict):
        raise Refused(400, "the body: expected a JSON object")
    return request, body[length:], stated is not None


def _select(request: Json, outputs: dict[str, Any], every_binary: bool) -> list[tuple[str, Any, bool]]:
    entries = request.get("outputs")
    if entries is None:
        return [(name, array, every_binary) for name, array in outputs.items()]
    if not isinstance(entries, list):
        raise Refused(400, "outputs: expected a list")
    selected = []
    for entry in entries:
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or name not in outputs:
            raise Refused(400, f"output {name!r}: expected one of " + ", ".join(outputs))
        options = parameters(entry, f"output {name!r}")
        unknown = sorted(set(options) - {"binary_data"})
        if unknown:
            raise Refused(400, f"output {name!r}: parameter {unknown[0]!r} is not supported")
        binary = flag(options, "binary_data", f"output {name!r}", every_binary)
        selected.append((name, outputs[name], binary))
    return selected
