"""Verbs `activate` and `rollback`: change the release that serves a model."""

from __future__ import annotations

from edgeq_agent.activation import soak, swap
from edgeq_agent.activation.gate import GateRequest
from edgeq_agent.activation.state_record import FAILURE_LIMIT, SoakPolicy
from edgeq_agent.calls.call import Call
from edgeq_agent.calls.fields import Fields
from edgeq_agent.storage import lock
from edgeq_agent.verbs import recovers_itself
from edgeq_agent.wire import Json

_LARGEST_LIMIT = 1 << 31


@recovers_itself
def activate(call: Call) -> Json:
    """Verb `activate`: let a release serve once it has proved healthy here.

    With `soak_s` the release soaks for that long before it is committed. With `retry` a release that failed
    too often here is attempted again.

    Raises:
        AgentError: EQ501 space, EQ503 device or runtime, EQ504 not healthy, EQ505 another manifest, EQ508
            busy, EQ509 a blob is missing, EQ511 the model hangs, EQ520 too many attempts, EQ530 to EQ537 its
            signature or counter. In all cases the previous release still serves.
    """
    request = GateRequest.parse(call.fields)
    policy = _soak_policy(call.fields)
    with lock.hold(call.home):
        return swap.activate(call.home, request, policy, call.response.progress).to_json()


@recovers_itself
def rollback(call: Call) -> Json:
    """Verb `rollback`: let the previous release serve again; idempotent with `from`.

    Raises:
        AgentError: as `swap.roll_back`; EQ508 busy.
    """
    fields = call.fields
    model = fields.model_name()
    expected = fields.sha256("from") if "from" in fields else None
    with lock.hold(call.home):
        result = swap.roll_back(call.home, model, expected, fields.timeout_s(), call.response.progress)
        return result.to_json()


def _soak_policy(fields: Fields) -> SoakPolicy | None:
    soak_s = fields.number("soak_s", 0.0)
    limit = fields.integer("failure_limit", 0, _LARGEST_LIMIT, default=FAILURE_LIMIT)
    if soak_s > soak.MAX_S:
        raise fields.refuse("soak_s", f"seconds, at most {soak.MAX_S:g}")
    return SoakPolicy(int(soak_s * 1e9), limit) if soak_s else None
