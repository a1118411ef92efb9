"""Parse the requests of the Open Inference Protocol v2, once, into frozen values."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from edgeq_agent.calls.fields import Fields
from edgeq_agent.http.body import Message, flag, parameters
from edgeq_agent.http.errors import Refused
from edgeq_agent.http.tensors import inputs_of

_PARAMETERS = (
    "binary_data_output", "key", "raw", "deadline_s", "ticket",
    "sequence_id", "sequence_start", "sequence_end",
)  # fmt: skip
_LONGEST_ID = 200
_LARGEST_ID = (1 << 64) - 1


class Sequence(NamedTuple):
    """A request's place in a sequence, as Triton's sequence extension describes it.

    Attributes:
        name: of its session. The number 1 and the text "1" are ids of two sequences.
        id: its id as text.
        start: whether the request is the first one.
        end: whether it is the last one.
    """

    name: str
    id: str
    start: bool
    end: bool


class OutputChoice(NamedTuple):
    """An output that a request asks for.

    Attributes:
        name: as it arrived; the outputs of the release that responds decide whether there is one.
        binary: whether to send it as binary data.
    """

    name: object
    binary: bool


class InferRequest(NamedTuple):
    """An inference request.

    Attributes:
        id: of the request; the response repeats it.
        inputs: arrays by name.
        key: identifies the caller for an A/B split.
        raw: whether the outputs keep the model's own types.
        deadline_s: None is the server's own.
        ticket: whether to issue a ticket for feedback.
        sequence: None for a request that belongs to no sequence.
        binary_outputs: whether outputs are sent as binary data, where no choice says otherwise.
        outputs: None asks for all.
    """

    id: str | None
    inputs: dict[str, Any]
    key: object
    raw: bool
    deadline_s: float | None
    ticket: bool
    sequence: Sequence | None
    binary_outputs: bool
    outputs: tuple[OutputChoice, ...] | None


class Feedback(NamedTuple):
    """Whether the output that a ticket stands for was right."""

    ticket: str
    correct: bool


def parse_infer(message: Message) -> InferRequest:
    """Return an inference request.

    Raises:
        Refused: 400, a field does not follow the protocol.
        AgentError: EQ512, the deadline is not a duration.
    """
    fields = message.fields
    options = parameters(fields, "the request")
    unknown = sorted(set(options.json()) - set(_PARAMETERS))
    if unknown:
        raise Refused(
            400, f"parameters: {unknown[0]!r} is not supported; expected one of " + ", ".join(_PARAMETERS)
        )
    raw = flag(options, "raw", "the request")
    binary_outputs = flag(options, "binary_data_output", "the request")
    inputs = inputs_of(message)
    key = options.raw("key")
    if isinstance(key, (dict, list)):
        raise Refused(400, "parameters: key: expected a text or a number")
    identity = fields.raw("id")
    return InferRequest(
        id=identity if isinstance(identity, str) else None,
        inputs=inputs,
        key=key,
        raw=raw,
        ticket=flag(options, "ticket", "the request"),
        sequence=_sequence(options),
        deadline_s=options.seconds("deadline_s", 0.0) if options.has("deadline_s") else None,
        binary_outputs=binary_outputs,
        outputs=_choices(fields, binary_outputs),
    )


def _sequence(options: Fields) -> Sequence | None:
    start = flag(options, "sequence_start", "the request")
    end = flag(options, "sequence_end", "the request")
    name = options.raw("sequence_id")
    if name is None or name == "" or (name == 0 and not isinstance(name, bool)):
        if start or end:
            raise Refused(
                400, "parameters: sequence_start and sequence_end need a sequence_id that is not 0 or empty"
            )
        return None
    is_number = isinstance(name, int) and not isinstance(name, bool) and 0 < name <= _LARGEST_ID
    if not is_number and not (isinstance(name, str) and len(name) <= _LONGEST_ID):
        raise Refused(
            400,
            f"parameters: sequence_id: expected a number below 2**64, or up to {_LONGEST_ID} characters",
        )
    return Sequence(json.dumps(name), str(name), start, end)


def _choices(fields: Fields, binary_outputs: bool) -> tuple[OutputChoice, ...] | None:
    entries = fields.raw("outputs")
    if entries is None:
        return None
    if not isinstance(entries, list):
        raise Refused(400, "outputs: expected a list")
    return tuple(_choice(entry, binary_outputs) for entry in entries)


def _choice(entry: Any, binary_outputs: bool) -> OutputChoice:
    # What is not an object has no name, so no output is found for it.
    fields = Fields(entry if isinstance(entry, dict) else {})
    name = fields.raw("name")
    options = parameters(fields, f"output {name!r}")
    unknown = sorted(set(options.json()) - {"binary_data"})
    if unknown:
        raise Refused(400, f"output {name!r}: parameter {unknown[0]!r} is not supported")
    return OutputChoice(name, flag(options, "binary_data", f"output {name!r}", binary_outputs))


def parse_feedback(request: Fields) -> Feedback:
    """Return the feedback of a request.

    Raises:
        Refused: 400, a field does not follow the protocol.
    """
    unknown = sorted(set(request.json()) - {"ticket", "correct"})
    if unknown:
        raise Refused(400, f"feedback: {unknown[0][:60]!r} is not supported; expected ticket and correct")
    ticket, correct = request.raw("ticket"), request.raw("correct")
    if not isinstance(correct, bool) or not isinstance(ticket, str):
        raise Refused(400, "feedback: expected a text `ticket` and true or false as `correct`")
    return Feedback(ticket, correct)
