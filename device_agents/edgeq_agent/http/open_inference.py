"""The Open Inference Protocol v2 over HTTP: a function from a request to a response.

`GET /v2`, `/v2/health/live`, `/v2/health/ready`, `/v2/models/NAME[/versions/ID]`, `.../ready`, and
`POST /v2/models/NAME[/versions/ID]/infer`, with the binary tensor data extension. A version is a release id.
A quantized input accepts real values (FP32) or the model's own integers. Outputs are real values unless the
request's parameter `raw` is true. The parameter `key` identifies the caller for an A/B split.

Extension: with the parameter `ticket` true, the response's parameters have a `ticket`. Later,
`POST /v2/models/NAME/feedback` with {"ticket": ..., "correct": true or false} reports whether the output was
right.

Requests of one sequence have the parameter `sequence_id`, the first one `sequence_start` and the last one
`sequence_end` (Triton's sequence extension). They run on an interpreter of their own, so that the model's
state goes on from each to the next.
"""

from __future__ import annotations

import json
import re
from typing import Any, Collection, Mapping, NamedTuple
from urllib.parse import unquote

from edgeq_agent import __version__
from edgeq_agent.errors import AgentError
from edgeq_agent.http.body import HEADER_LENGTH, split
from edgeq_agent.http.errors import Refused, refusal
from edgeq_agent.http.requests import InferRequest, Sequence, parse_feedback, parse_infer
from edgeq_agent.http.tensors import OutputTensor, TensorMetadata
from edgeq_agent.sdk.answer import Answer
from edgeq_agent.sdk.runtime import Runtime
from edgeq_agent.wire import Json

_MODEL = re.compile(
    r"/v2/models/(?P<name>[^/]+)(/versions/(?P<version>[^/]+))?(?P<action>/ready|/infer|/feedback)?"
)


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
                "extensions": ["binary_tensor_data", "sequence", "sequence(string_id)", "edgeq_feedback"],
            },
        )

    def _live(self) -> Reply:
        return as_json(200, {"live": True})

    def _ready(self) -> Reply:
        recorded = not any(runtime.recording_problem for runtime in self._runtimes.values())
        ready = recorded and not (self._missing or self.ending)
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
            "inputs": [TensorMetadata.of(info).to_json() for info in inputs],
            "outputs": [TensorMetadata.of(info).to_json() for info in outputs],
        },
    )


def _infer(
    runtime: Runtime, name: str, version: str | None, headers: Mapping[str, str], body: bytes
) -> Reply:
    request = parse_infer(split(headers, body))
    if request.sequence is not None:
        return _next(runtime, name, version, request, request.sequence)
    answer = runtime.run(
        request.inputs, request.key, request.raw, request.deadline_s, release=version, ticket=request.ticket
    )
    return _reply(name, request, answer)


def _next(
    runtime: Runtime, model: str, version: str | None, request: InferRequest, sequence: Sequence
) -> Reply:
    """Return the response to a request of a sequence; a sequence whose first request fails has not begun."""
    if sequence.start:
        key = sequence.id if request.key is None else request.key
        session = runtime.session(sequence.name, key=key, release=version)
    else:
        session = runtime.session_named(sequence.name)
        if version not in (None, session.release):
            raise Refused(404, f"sequence {sequence.name} of {model!r} runs on version {session.release}")
    ends = sequence.end
    try:
        # Before it runs: a request that is refused leaves the state as it was.
        _check_choices(request, [info.name for info in session.outputs])
        answer = session.run(request.inputs, request.raw, request.deadline_s, request.ticket)
        return _reply(model, request, answer)
    except BaseException:
        ends = ends or sequence.start
        raise
    finally:
        if ends:
            session.close()


def _reply(model: str, request: InferRequest, answer: Answer) -> Reply:
    return Inference(model, request.id, answer, _select(request, answer.outputs)).reply()


class Inference(NamedTuple):
    """The response to an inference request.

    Attributes:
        request_id: the request's own id, if it had one.
        outputs: those that were asked for.
    """

    model: str
    request_id: str | None
    answer: Answer
    outputs: tuple[OutputTensor, ...]

    def reply(self) -> Reply:
        """Return the response: JSON, or JSON and the binary outputs.

        Raises:
            Refused: 500, an output cannot be written in JSON.
        """
        response: Json = {
            "model_name": self.model,
            "model_version": self.answer.release,
            "outputs": [output.to_json() for output in self.outputs],
        }
        extra = {
            "arm": self.answer.arm,
            "ticket": self.answer.ticket,
            "sequence_restarted": self.answer.restarted or None,
        }
        if any(value is not None for value in extra.values()):
            response["parameters"] = {name: value for name, value in extra.items() if value is not None}
        if self.request_id is not None:
            response["id"] = self.request_id
        if not any(output.binary for output in self.outputs):
            return as_json(200, response)
        head = json.dumps(response, allow_nan=False).encode()
        return Reply(
            200,
            head + b"".join(output.to_bytes() for output in self.outputs),
            {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(head))},
        )


def _select(request: InferRequest, outputs: Mapping[str, Any]) -> tuple[OutputTensor, ...]:
    if request.outputs is None:
        return tuple(OutputTensor(name, array, request.binary_outputs) for name, array in outputs.items())
    _check_choices(request, outputs)
    return tuple(
        OutputTensor(str(each.name), outputs[str(each.name)], each.binary) for each in request.outputs
    )


def _check_choices(request: InferRequest, known: Collection[str]) -> None:
    """Refuse a request for an output that is none of the known ones; where none is known, allow all."""
    for choice in request.outputs or ():
        if known and (not isinstance(choice.name, str) or choice.name not in known):
            raise Refused(400, f"output {str(choice.name)[:80]!r}: expected one of " + ", ".join(known))


def _feedback(
    runtime: Runtime, name: str, version: str | None, headers: Mapping[str, str], body: bytes
) -> Reply:
    if version is not None:
        raise Refused(404, "feedback: the ticket identifies the version; leave out /versions/ID")
    feedback = parse_feedback(split(headers, body).fields)
    runtime.feedback(feedback.ticket, feedback.correct)
    return as_json(200, {"model_name": name, "counted": True})
