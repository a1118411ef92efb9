"""Gates, the Pareto front and the choice."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.blueprint import Blueprint, Limits, Preference, Scheme
from edgeq.errors import GateError
from edgeq.selection import Measured, gates_of, rank, require_chosen
from edgeq.values import DeviceKind, Metrics, Variant
from edgeq_converters.values import OutputSqnr

FLOAT = Metrics(samples=100, accuracy=0.95)


def variant(name: str, size: int, accuracy: float | None = 0.95, sqnr: float | None = 30.0) -> Variant:
    metrics = Metrics(samples=100, accuracy=accuracy, agreement=0.99, output_sqnr_db=sqnr)
    return Variant(name=name, path=Path(name), sha256="0" * 64, size_bytes=size, metrics=metrics)


def blueprint(limits: Limits, *prefer: Preference, pi: Limits | None = None) -> Blueprint:
    return Blueprint(
        name="m",
        source=Path("m.keras"),
        calibration=None,
        evaluation=Path("e.npz"),
        schemes=(Scheme.INT8,),
        io=None,
        labels=(),
        limits=limits,
        device_limits={DeviceKind.RASPBERRY_PI: pi} if pi else {},
        prefer=prefer or (Preference.SIZE, Preference.ACCURACY),
        digest="0" * 64,
    )


def test_the_smallest_within_every_limit_is_chosen() -> None:
    variants = [variant("float16", 200, 0.95), variant("int8", 100, 0.94), variant("int4", 50, 0.90)]
    selection = rank(variants, baseline=FLOAT, blueprint=blueprint(Limits(accuracy_drop_max=0.02)))
    assert require_chosen(selection, subject="m").variant.name == "int8"
    assert [candidate.variant.name for candidate in selection.candidates] == ["int4", "int8", "float16"]


@given(useless=st.sets(st.integers(0, 4)), failing=st.sets(st.integers(0, 4)))
def test_a_useless_variant_is_chosen_only_where_nothing_useful_meets_the_limits(
    useless: set[int], failing: set[int]
) -> None:
    variants = []
    for i in range(5):
        plain = variant(str(i), 100 + i, 0.5 if i in failing else 0.95)
        metrics = replace(plain.metrics, useless="constant" if i in useless else None)
        variants.append(replace(plain, metrics=metrics))
    selection = rank(variants, baseline=FLOAT, blueprint=blueprint(Limits(accuracy_drop_max=0.02)))
    left = [i for i in range(5) if i not in failing]
    expected = next(iter([i for i in left if i not in useless] or left), None)
    chosen = selection.chosen
    assert (None if chosen is None else int(chosen.variant.name)) == expected
    for candidate in selection.candidates:
        assert ("useless" in candidate.limits_text) == (int(candidate.variant.name) in useless)


def test_preferences_are_followed_in_their_order() -> None:
    variants = [variant("float16", 200, 0.95, 50), variant("int8", 100, 0.94, 30)]
    by_accuracy = blueprint(Limits(), Preference.ACCURACY, Preference.SIZE)
    assert (
        require_chosen(rank(variants, baseline=FLOAT, blueprint=by_accuracy), subject="m").variant.name
        == "float16"
    )
    by_latency = blueprint(Limits(), Preference.LATENCY)
    measured = {"float16": Measured(latency_p95_ns=5), "int8": Measured(latency_p95_ns=9)}
    chosen = rank(variants, baseline=FLOAT, blueprint=by_latency, measured=measured).chosen
    assert chosen is not None
    assert chosen.variant.name == "float16"


def test_a_drop_of_exactly_the_limit_holds() -> None:
    gates = gates_of(variant("int8", 1, 0.94), baseline=FLOAT, limits=Limits(accuracy_drop_max=0.01))
    assert [gate.holds for gate in gates] == [True]


def test_a_gate_without_a_measurement_is_open() -> None:
    limits = Limits(latency_p95_ns_max=10, accuracy_min=0.5)
    gates = gates_of(variant("int8", 1, None), baseline=FLOAT, limits=limits)
    assert {gate.name: gate.holds for gate in gates} == {"latency_p95_ns_max": None, "accuracy_min": None}
    slow = gates_of(variant("int8", 1), baseline=FLOAT, limits=limits, measured=Measured(latency_p95_ns=11))
    assert {gate.name: gate.holds for gate in slow} == {"latency_p95_ns_max": False, "accuracy_min": True}


def test_a_gate_is_shown_under_the_blueprints_key_with_units() -> None:
    limits = Limits(size_bytes_max=65536, latency_p95_ns_max=5_000_000, output_sqnr_db_min=20.5)
    gates = gates_of(variant("int8", 71936), baseline=FLOAT, limits=limits)
    assert [gate.text for gate in gates] == [
        "output_sqnr_db_min 20.5 dB holds",
        "size_max 64.0 KiB FAILS",
        "latency_p95_max 5 ms not measured yet",
    ]
    assert gates[1].miss == "size_max 64.0 KiB, got 70.2 KiB"
    (close,) = gates_of(variant("int8", 65537), baseline=FLOAT, limits=Limits(size_bytes_max=65536))
    assert close.miss == "size_max 65536, got 65537"


def test_the_worst_slice_decides_on_the_sqnr() -> None:
    outputs = (OutputSqnr(name="out", sqnr_db=48.0, slices=14, worst_slice=9, worst_slice_db=0.0),)
    dead = replace(variant("int8", 1), metrics=replace(FLOAT, output_sqnr_db=48.0, outputs=outputs))
    (gate,) = gates_of(dead, baseline=FLOAT, limits=Limits(output_sqnr_db_min=20.0))
    assert (gate.holds, gate.value) == (False, 0.0)
    alive = variant("mixed", 2, sqnr=31.0)
    selection = rank([dead, alive], baseline=FLOAT, blueprint=blueprint(Limits(), Preference.SQNR))
    assert [each.variant.name for each in selection.candidates] == ["mixed", "int8"]
    assert selection.candidates[0].on_front


def test_the_limits_of_a_candidate_are_one_short_text() -> None:
    limits = Limits(size_bytes_max=60, accuracy_drop_max=0.02, latency_p95_ns_max=5)
    selection = rank([variant("int8", 100, 0.94)], baseline=FLOAT, blueprint=blueprint(limits))
    assert selection.candidates[0].limits_text == (
        "FAILS size_max 60 B, got 100 B; 1 of 3 hold; not measured yet: latency_p95_max"
    )


def test_no_admissible_variant_is_a_gate_error_with_figures() -> None:
    limits = Limits(accuracy_drop_max=0.02, size_bytes_max=60)
    selection = rank(
        [variant("int8", 100, 0.94), variant("int4", 50, 0.90)], baseline=FLOAT, blueprint=blueprint(limits)
    )
    assert selection.chosen is None
    with pytest.raises(GateError, match=r"nearest is int4: accuracy_drop_max 2\.0 %, got 5\.0 %") as caught:
        require_chosen(selection, subject="m")
    assert caught.value.exit_status == 3


def test_no_variant_at_all_is_a_gate_error() -> None:
    with pytest.raises(GateError, match="no variant was evaluated"):
        require_chosen(rank([], baseline=FLOAT, blueprint=blueprint(Limits())), subject="m")


def test_a_device_kind_has_its_own_limits() -> None:
    plan = blueprint(Limits(size_bytes_max=1000), pi=Limits(size_bytes_max=10))
    assert rank([variant("a", 50)], baseline=FLOAT, blueprint=plan).chosen is not None
    assert (
        rank([variant("a", 50)], baseline=FLOAT, blueprint=plan, kind=DeviceKind.RASPBERRY_PI).chosen is None
    )


def of_900(name: str, size: int, right: int, sqnr: float = 30.0) -> Variant:
    metrics = Metrics(samples=900, accuracy=right / 900, output_sqnr_db=sqnr)
    return Variant(name=name, path=Path(name), sha256="0" * 64, size_bytes=size, metrics=metrics)


@pytest.mark.parametrize(
    ("prefer", "others", "chosen"),
    [
        ((Preference.ACCURACY,), [("mixed", 150, 871, 35.0)], "int8"),  # one sample of 900 counts as equal
        ((Preference.ACCURACY,), [("mixed", 150, 873, 35.0)], "int8"),
        ((Preference.ACCURACY,), [("mixed", 150, 874, 35.0)], "mixed"),
        ((Preference.ACCURACY, Preference.SQNR), [("mixed", 150, 871, 35.0)], "mixed"),
        ((Preference.SQNR,), [("mixed", 150, 870, 30.05)], "int8"),
        ((Preference.SQNR,), [("mixed", 150, 870, 30.2)], "mixed"),
        ((Preference.SQNR,), [("a-copy", 101, 870, 30.0)], "int8"),
        ((Preference.SIZE, Preference.SQNR), [("same", 100, 800, 31.0)], "same"),
        ((Preference.LATENCY,), [("mixed", 150, 900, 40.0)], "int8"),
    ],
)
def test_a_tie_is_decided_for_the_smaller_model(
    prefer: tuple[Preference, ...], others: list[tuple[str, int, int, float]], chosen: str
) -> None:
    variants = [*(of_900(*other) for other in others), of_900("int8", 100, 870)]
    measured = {"int8": Measured(latency_p95_ns=1000), "mixed": Measured(latency_p95_ns=980)}
    selection = rank(variants, baseline=FLOAT, blueprint=blueprint(Limits(), *prefer), measured=measured)
    assert selection.chosen is not None
    assert selection.chosen.variant.name == chosen


figures = st.tuples(st.integers(1, 4), st.integers(850, 860), st.sampled_from([29.95, 30.0, 30.2]))


@given(
    rows=st.lists(figures, min_size=1, max_size=6),
    prefer=st.lists(st.sampled_from(list(Preference)), min_size=1, max_size=4, unique=True),
    order=st.randoms(use_true_random=False),
)
def test_the_choice_is_at_least_as_good_as_any_and_the_smallest_of_its_equals(
    rows: list[tuple[int, int, float]], prefer: list[Preference], order: random.Random
) -> None:
    variants = [of_900(f"v{i}", *row) for i, row in enumerate(rows)]
    ranked = rank(variants, baseline=FLOAT, blueprint=blueprint(Limits(), *prefer))
    shuffled = order.sample(variants, len(variants))
    again = rank(shuffled, baseline=FLOAT, blueprint=blueprint(Limits(), *prefer))
    names = [each.variant.name for each in ranked.candidates]
    assert names == [each.variant.name for each in again.candidates]
    assert sorted(names) == sorted(variant.name for variant in variants)
    assert ranked.chosen is not None
    best = ranked.chosen.variant
    same = [v for v in variants if v.metrics == best.metrics]
    assert best.size_bytes == min(v.size_bytes for v in same)
    first = prefer[0]
    if first is Preference.SIZE:
        assert best.size_bytes == min(v.size_bytes for v in variants)
    elif first is Preference.ACCURACY:
        most = max(v.metrics.accuracy or 0 for v in variants)
        assert (best.metrics.accuracy or 0) >= most - 3.01 / 900


def test_a_scheme_that_the_blueprint_does_not_list_is_not_chosen() -> None:
    variants = [variant("float16", 200), variant("int8", 100)]
    plan = blueprint(Limits())
    selection = rank(variants, baseline=FLOAT, blueprint=plan, unlisted=["int8"])
    assert require_chosen(selection, subject="m").variant.name == "float16"
    assert selection.candidates[0].limits_text == "not among the blueprint's schemes"
    nothing = rank(variants, baseline=FLOAT, blueprint=plan, unlisted=["int8", "float16"])
    with pytest.raises(GateError, match="no variant of the blueprint's schemes"):
        require_chosen(nothing, subject="m")


sizes = st.integers(1, 5)
shares = st.sampled_from([0.8, 0.9, 0.95])


@given(st.lists(st.tuples(sizes, shares, shares), min_size=1, max_size=8))
def test_the_front_is_never_empty_and_dominates_the_rest(rows: list[tuple[int, float, float]]) -> None:
    variants = [variant(f"v{i}", size, accuracy, sqnr) for i, (size, accuracy, sqnr) in enumerate(rows)]
    candidates = rank(variants, baseline=FLOAT, blueprint=blueprint(Limits())).candidates
    front = [candidate.variant for candidate in candidates if candidate.on_front]
    assert front
    for candidate in candidates:
        if not candidate.on_front:
            one = candidate.variant
            assert any(
                other.size_bytes <= one.size_bytes
                and (other.metrics.accuracy or 0) >= (one.metrics.accuracy or 0)
                and (other.metrics.output_sqnr_db or 0) >= (one.metrics.output_sqnr_db or 0)
                for other in front
            )
