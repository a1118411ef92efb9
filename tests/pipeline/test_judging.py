"""The limits of several devices: a candidate must hold those of each."""

from __future__ import annotations

from edgeq.blueprint import Limits, Scheme
from edgeq.pipeline.judging import Target, judge
from edgeq.search.measuring import Latency
from edgeq.selection import Selection
from edgeq.values import DeviceKind
from tests.pipeline.candidates import BASELINE, blueprint, variant

PI, CORAL = DeviceKind.RASPBERRY_PI, DeviceKind.CORAL
PLAN = blueprint(
    Limits(size_bytes_max=100),
    device_limits={PI: Limits(latency_p95_ns_max=20), CORAL: Limits(latency_p95_ns_max=5)},
)


def judged(pi: dict[str, int], coral: dict[str, int], **changed: object) -> Selection:
    def target(name: str, kind: DeviceKind, p95_ns: dict[str, int]) -> Target:
        latencies = {sha: Latency(p50_ns=ns, p95_ns=ns, low_ns=ns, high_ns=ns) for sha, ns in p95_ns.items()}
        return Target(name=name, kind=kind, latencies=latencies)

    return judge(
        [variant("int8", 10), variant("float16", 20)],
        schemes={"int8": Scheme.INT8, "float16": Scheme.FLOAT16},
        baseline=BASELINE,
        blueprint=blueprint(PLAN.limits, device_limits=PLAN.device_limits, **changed),
        targets=[target("pi", PI, pi), target("board", CORAL, coral)],
    )


def test_the_model_must_hold_the_limits_of_every_device() -> None:
    chosen = judged({"int8": 9, "float16": 9}, {"int8": 9, "float16": 4}).chosen
    assert chosen is not None
    assert chosen.variant.name == "float16"
    assert [(gate.key, gate.limit) for gate in chosen.gates] == [
        ("size_max", 100),
        ("latency_p95_max (pi)", 20),
        ("latency_p95_max (board)", 5),
    ]


def test_the_same_gate_is_listed_once() -> None:
    selection = judged({"int8": 4, "float16": 4}, {"int8": 4, "float16": 4})
    names = [gate.name for gate in selection.candidates[0].gates]
    assert names.count("size_bytes_max") == 1


def test_a_device_that_fails_alone_refuses_the_model() -> None:
    assert judged({"int8": 21, "float16": 21}, {"int8": 4, "float16": 4}).chosen is None


def test_a_kind_of_device_may_be_given_fewer_schemes() -> None:
    selection = judged(
        {"int8": 4, "float16": 4}, {"int8": 4, "float16": 4}, device_schemes={CORAL: (Scheme.FLOAT16,)}
    )
    assert selection.chosen is not None
    assert selection.chosen.variant.name == "float16"
