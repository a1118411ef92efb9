"""The search without models: which choices are built, and which candidates are on the front."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgeq.blueprint import Blueprint, Limits, Preference, Scheme
from edgeq.conversion import Recipe
from edgeq.search.building import BuiltCandidate
from edgeq.search.finalists import cost, finalists
from edgeq.search.measuring import Latency
from edgeq.search.remarks import remarks_on
from edgeq.search.scoring import Scores, score
from edgeq.values import DeviceKind, Metrics, Variant
from edgeq_converters.sensitivity.float_region_values import FloatRegionSet
from edgeq_converters.values import OutputSqnr


def choice(
    sqnr_db: float, *indices: int, work: float = 0.1, added: int = 100, borders: int = 1
) -> FloatRegionSet:
    return FloatRegionSet(
        family="ranking" if indices else "int8",
        float_ops=tuple(f"t{i}" for i in indices),
        indices=indices,
        sqnr_db=sqnr_db,
        added_bytes=added if indices else 0,
        work=work if indices else 0.0,
        borders=borders if indices else 0,
    )


def test_a_dominated_choice_is_not_built() -> None:
    good = choice(30.0, 1, work=0.1)
    bad = choice(29.0, 2, work=0.2)
    assert finalists([choice(20.0), good, bad], 5) == (good,)


def test_a_choice_without_gain_over_int8_is_not_built() -> None:
    assert finalists([choice(20.0), choice(20.3, 1), choice(19.0, 2)], 5) == ()


def test_a_choice_with_almost_all_work_in_float_is_not_built() -> None:
    assert finalists([choice(20.0), choice(60.0, 1, 2, 3, work=0.95)], 5) == ()


def test_equal_choices_are_built_once() -> None:
    assert len(finalists([choice(20.0), choice(30.0, 2), choice(30.0, 1)], 5)) == 1


def test_thinning_keeps_both_ends() -> None:
    front = [choice(20.0 + k, k, work=0.05 * k, added=10 * k) for k in range(1, 15)]
    kept = finalists([choice(20.0), *front], 4)
    assert len(kept) == 4
    assert kept[0] == front[0]
    assert kept[-1] == front[13]
    assert [each.sqnr_db for each in kept] == sorted(each.sqnr_db for each in kept)
    assert finalists([choice(20.0), *front], 1) == (min(front, key=cost),)


def built(
    name: str, size: int, sqnr_db: float | None, *float_ops: str, accuracy: float = 0.9
) -> BuiltCandidate:
    scheme = Scheme.INT8_MIXED if float_ops else Scheme.INT8
    return BuiltCandidate(
        name=name,
        family="test",
        recipe=Recipe(scheme=scheme, float_ops=float_ops),
        variant=Variant(
            name=name,
            path=Path(name),
            sha256=name,
            size_bytes=size,
            metrics=Metrics(samples=9, accuracy=accuracy, output_sqnr_db=sqnr_db),
        ),
        problem="",
        reused=False,
    )


def latency(p50_ns: int) -> Latency:
    return Latency(p50_ns=p50_ns, p95_ns=p50_ns + 10, low_ns=p50_ns, high_ns=p50_ns)


def scored(candidates: list[BuiltCandidate], times: dict[str, int], limits: Limits | None = None) -> Scores:
    return score(
        candidates,
        baseline=Metrics(samples=9, accuracy=0.9),
        blueprint=Blueprint(
            name="b",
            source=Path("f"),
            calibration=Path("c"),
            evaluation=Path("e"),
            schemes=(Scheme.INT8,),
            io=None,
            labels=(),
            limits=limits or Limits(),
            prefer=(Preference.SIZE,),
            digest="",
        ),
        latencies={name: latency(ns) for name, ns in times.items()},
        kind=None,
    )


def front(scores: Scores) -> set[str]:
    return {point.variant.name for point in scores.points if point.on_front}


def test_a_dominated_candidate_is_off_the_front() -> None:
    scores = scored(
        [built("int8", 100, 25.0), built("good", 110, 35.0, "a"), built("bad", 120, 30.0, "b")],
        {"int8": 1000, "good": 1010, "bad": 1500},
    )
    assert front(scores) == {"int8", "good"}


def test_a_faster_candidate_is_on_the_front_beyond_the_noise() -> None:
    candidates = [built("int8", 100, 25.0), built("one", 110, 35.0, "a"), built("two", 120, 34.0, "b")]
    assert front(scored(candidates, {"int8": 1000, "one": 1500, "two": 1200})) == {"int8", "one", "two"}
    assert front(scored(candidates, {"int8": 1000, "one": 1220, "two": 1200})) == {"int8", "one"}


def test_the_worst_slice_decides_the_front_and_what_is_considered() -> None:
    def detector(name: str, size: int, whole_db: float, worst_db: float, *float_ops: str) -> BuiltCandidate:
        candidate = built(name, size, whole_db, *float_ops)
        assert candidate.variant is not None
        boxes = OutputSqnr(name="out", sqnr_db=whole_db, slices=6, worst_slice=4, worst_slice_db=worst_db)
        metrics = replace(candidate.variant.metrics, outputs=(boxes,))
        return replace(candidate, variant=replace(candidate.variant, metrics=metrics))

    scores = scored(
        [
            detector("int8", 100, 40.0, 0.0),
            detector("dead", 110, 49.0, 0.0, "a"),
            detector("alive", 120, 45.0, 31.0, "b"),
        ],
        {"int8": 1000, "dead": 1000, "alive": 1010},
    )
    assert front(scores) == {"int8", "alive"}
    assert "consider alive: accuracy 90.0 %, worst slice 0.0 -> 31.0 dB" in scores.verdict


def test_an_untimed_candidate_is_not_faster() -> None:
    candidates = [built("int8", 100, 25.0), built("one", 110, 35.0, "a"), built("two", 120, 34.0, "b")]
    assert front(scored(candidates, {"int8": 1000, "one": 1500})) == {"int8", "one"}


def test_the_latency_limit_uses_the_measured_latency() -> None:
    limits = Limits(output_sqnr_db_min=30.0, latency_p95_ns_max=1300)
    candidates = [built("int8", 100, 25.0), built("slow", 110, 35.0, "a"), built("fast", 120, 33.0, "b")]
    scores = scored(candidates, {"int8": 1000, "slow": 1500, "fast": 1200}, limits)
    assert scores.chosen is not None
    assert scores.chosen.variant.name == "fast"
    assert scores.verdict.startswith("int8 fails output_sqnr_db_min; fast with 1 operation float")


def test_the_best_alternative_to_int8_is_named() -> None:
    candidates = [
        built("int8", 100, 25.0),
        built("cheap", 101, 33.0, "a"),
        built("dear", 300, 45.0, "a", "b"),
    ]
    scores = scored(candidates, {"int8": 1000, "cheap": 1000, "dear": 3000})
    assert scores.chosen is not None
    assert scores.chosen.variant.name == "int8"
    assert "consider cheap: accuracy 90.0 %, output SQNR 25.0 -> 33.0 dB" in scores.verdict


def test_a_model_that_cannot_be_int8_is_scored_without_it() -> None:
    failed = replace(built("int8", 1, None), variant=None, problem="EQ307: op stays float")
    scores = scored([failed, built("int8-mixed", 100, 25.0, "a")], {})
    assert "converting all operations to int8 was not possible" in scores.verdict


def test_no_candidate_meets_every_limit() -> None:
    scores = scored([built("int8", 100, 25.0)], {}, Limits(size_bytes_max=10))
    assert scores.chosen is None
    assert scores.verdict == "no candidate meets every limit"


def plan(*schemes: Scheme, limits: Limits | None = None, **devices: Limits) -> Blueprint:
    return Blueprint(
        name="b",
        source=Path("f"),
        calibration=Path("c"),
        evaluation=Path("e"),
        schemes=schemes,
        io=None,
        labels=(),
        limits=limits or Limits(),
        device_limits={DeviceKind(name.replace("_", "-")): each for name, each in devices.items()},
        prefer=(Preference.SIZE,),
        digest="",
    )


@pytest.mark.parametrize(
    ("schemes", "chosen"),
    [
        ((Scheme.INT8,), "int8"),
        ((Scheme.FLOAT16, Scheme.INT8), "int8"),
        ((Scheme.INT8_MIXED,), "mixed"),
        ((Scheme.FLOAT16,), "float16"),
        ((Scheme.DYNAMIC,), None),
    ],
)
def test_only_schemes_of_the_blueprint_are_chosen(schemes: tuple[Scheme, ...], chosen: str | None) -> None:
    half = built("float16", 200, 60.0)
    candidates = [
        built("int8", 100, 25.0),
        built("mixed", 110, 35.0, "a"),
        replace(half, recipe=Recipe(scheme=Scheme.FLOAT16)),
    ]
    scores = score(
        candidates,
        baseline=Metrics(samples=9, accuracy=0.9),
        blueprint=plan(*schemes),
        latencies={},
        kind=None,
    )
    assert (scores.chosen and scores.chosen.variant.name) == chosen
    if chosen != "int8":
        assert "int8 meets every limit" not in scores.verdict


def test_a_search_says_what_it_adds_and_what_it_cannot_judge() -> None:
    with_pi = plan(
        Scheme.INT8,
        limits=Limits(latency_p95_ns_max=5_000_000),
        raspberry_pi=Limits(memory_peak_bytes_max=1),
    )
    here = remarks_on(with_pi, kind=None, on_device=False)
    assert here.notes == ("int8-mixed is not among the blueprint's schemes; the search adds it to int8",)
    assert here.warnings == (
        "the limits of raspberry-pi were not applied; --kind or --device applies them",
        "latency_p95_max: judged by figures of this machine; --device measures on a device",
    )
    applied = remarks_on(with_pi, kind=DeviceKind.RASPBERRY_PI, on_device=False)
    assert applied.warnings == (
        "latency_p95_max and memory_peak_max: judged by figures of this machine; "
        "--device measures on a device",
    )
    assert remarks_on(with_pi, kind=DeviceKind.RASPBERRY_PI, on_device=True).warnings == ()
    (note,) = remarks_on(plan(Scheme.FLOAT16), kind=None, on_device=False).notes
    assert note == ("int8 and int8-mixed: built for comparison only, because the blueprint lists float16")
