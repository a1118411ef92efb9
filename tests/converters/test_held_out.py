"""Nothing is fitted on the samples that judge it, and the claim follows from those alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = [
    pytest.mark.convert,
    pytest.mark.filterwarnings("ignore:.*preserve_all_tensors:UserWarning"),
]
pytest.importorskip("ai_edge_litert")

from edgeq_converters.calibration.observed import observe_parts  # noqa: E402
from edgeq_converters.calibration.ranges import Ranges  # noqa: E402
from edgeq_converters.data.partition import (  # noqa: E402
    Fold,
    HeldOutSamples,
    Partition,
    distinct,
    halves,
    partition,
    split,
)
from edgeq_converters.data.samples import Samples, digests  # noqa: E402
from edgeq_converters.graph.model import Model  # noqa: E402
from edgeq_converters.graph.normalize import normalize  # noqa: E402
from edgeq_converters.progress import ignore  # noqa: E402
from edgeq_converters.quantization import autotune, int4  # noqa: E402
from edgeq_converters.quantization.autotune import verdict  # noqa: E402
from edgeq_converters.quantization.autotune.judging import Judge, Powers  # noqa: E402
from edgeq_converters.recipe import Recipe  # noqa: E402
from edgeq_converters.sensitivity import screening  # noqa: E402
from edgeq_converters.values import Scheme  # noqa: E402

from .nets import net, quiet, samples  # noqa: E402


@settings(max_examples=20, deadline=None)
@given(
    values=st.lists(st.integers(0, 30), min_size=2, max_size=130).filter(lambda each: len(set(each)) > 1),
    seed=st.integers(0, 5),
)
def test_every_division_is_disjoint_complete_and_independent_of_the_order(
    values: list[int], seed: int
) -> None:
    rows = np.array(values, np.float32)[:, None]
    one, other = (Samples(inputs=(), arrays=(each,)) for each in (rows, rows[::-1].copy()))
    for divide in (partition, split, halves):
        parts: Any = divide(one, seed=seed)
        again: Any = divide(other, seed=seed)
        for fold, same in zip(parts.folds, again.folds, strict=True):
            fit, held_out = set(digests(fold.fit)), set(digests(fold.held_out))
            assert not fit & held_out  # equal samples are on one side
            assert fit | held_out == set(digests(one))
            assert len(fold.fit) + len(fold.held_out) == len(values)
            assert np.array_equal(fold.fit.arrays[0], same.fit.arrays[0])
            assert np.array_equal(fold.held_out.arrays[0], same.held_out.arrays[0])
        if parts.cross_fitted:
            assert parts.held_out == len(values)


@pytest.mark.parametrize(
    ("count", "folds", "held_out"), [(16, 4, 16), (99, 4, 99), (100, 1, 25), (400, 1, 64)]
)
def test_few_samples_are_cross_fitted(count: int, folds: int, held_out: int) -> None:
    rows = np.arange(count, dtype=np.float32)[:, None]
    parts = partition(Samples(inputs=(), arrays=(rows,)), seed=0)
    assert (len(parts.folds), parts.held_out) == (folds, held_out)


def test_a_sequence_is_on_one_side_of_every_division() -> None:
    rows = np.arange(60, dtype=np.float32)[:, None]
    given = Samples(inputs=(), arrays=(rows,), begins=np.arange(60) % 6 == 0)
    for divide in (partition, split, halves):
        parts: Any = divide(given, seed=0)
        for fold in parts.folds:
            fit, held_out = (
                set((part.arrays[0].ravel() // 6).tolist()) for part in (fold.fit, fold.held_out)
            )
            assert held_out
            assert not fit & held_out


def no_step(what: str, total: int) -> Any:
    assert what
    assert total >= 0
    return ignore


def poisoned(parts: Partition) -> Partition:
    """Return the partition with each held-out sample scaled by 1000, and their order reversed."""
    return Partition(
        folds=tuple(
            Fold(
                fit=fold.fit,
                held_out=HeldOutSamples(
                    replace(fold.held_out, arrays=tuple(1000 * a[::-1] for a in fold.held_out.arrays))
                ),
            )
            for fold in parts.folds
        )
    )


def judged_models(
    model: Model, given: Samples, parts: Partition, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[bytes], list[set[bytes]]]:
    """Return the bytes of all judged models, and the samples that each fixed range was taken from."""
    models: list[bytes] = []
    seen: list[set[bytes]] = []
    noise = Judge.noise

    def record(judge: Judge, made: Model) -> Powers:
        models.append(made.data)
        return noise(judge, made)

    def ranges(fit: Samples) -> Ranges:
        seen.append(set(digests(fit)))
        return {}

    with monkeypatch.context() as patch:
        patch.setattr(Judge, "noise", record)
        autotune.choose(
            model,
            observe_parts(model, given, parts, advance=quiet),
            given,
            recipe=recipe,
            fixed_ranges=ranges,
            step=no_step,
            judged=parts,
        )
    return models, seen


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "calibrator", "count"),
    [
        (Scheme.INT8, "minmax", 24),
        (Scheme.INT8, "auto", 24),
        (Scheme.INT8, "auto", 120),
        (Scheme.INT16X8, "minmax", 24),
    ],
)
def test_held_out_samples_change_nothing_that_is_fitted(
    scheme: Scheme, calibrator: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = normalize(net(activation=3, spread=1.5))
    given = samples(model, count)
    recipe = Recipe(scheme=scheme, calibrator=calibrator)
    parts = partition(given, seed=0)
    before, seen = judged_models(model, given, parts, recipe, monkeypatch)
    after, _ = judged_models(model, given, poisoned(parts), recipe, monkeypatch)
    # Two models are corrected at a time, in any order. Which ones `auto` corrects follows from the held-out
    # samples; what each of them is does not.
    common = len(set(before) & set(after))
    assert sorted(before) == sorted(after) if calibrator != "auto" else common >= 4 * len(parts.folds)
    for fold, fixed in zip(parts.folds, seen, strict=False):
        assert fixed == set(digests(fold.fit))


def test_the_choice_of_int4_operations_sees_no_sample_that_judges_the_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from edgeq_converters.quantization import integer

    model = normalize(net())
    given = samples(model, 40)
    used: list[Fold] = []
    judged: list[Partition] = []

    def choose(model: Model, fold: Fold, *, recipe: Recipe, step: Any) -> tuple[Recipe, tuple[str, ...]]:
        assert callable(step)
        assert model.graph.operators
        used.append(fold)
        return recipe, ()

    def tuned(*_: Any, judged: Any, **__: Any) -> Any:
        judgements.append(judged)
        raise StopIteration

    judgements = judged
    monkeypatch.setattr(int4, "choose", choose)
    monkeypatch.setattr(autotune, "choose", tuned)
    with pytest.raises(StopIteration):
        integer.quantize_activations(
            model, recipe=Recipe(scheme=Scheme.INT4), samples=given, histograms=None, step=no_step
        )
    (fold,), (parts,) = used, judged
    chosen_on = set(digests(fold.fit)) | set(digests(fold.held_out))
    assert not set(digests(fold.fit)) & set(digests(fold.held_out))
    assert not chosen_on & set(digests(parts.folds[0].held_out))
    assert distinct(given) == len(chosen_on) + parts.held_out


@pytest.mark.slow
def test_float_regions_are_screened_with_ranges_of_other_samples() -> None:
    model = normalize(net())
    parts = halves(samples(model, 20), seed=0)
    plain, hurt = (
        screening.prepare_folds(model, each, calibrator="minmax", advance=quiet)
        for each in (parts, poisoned(parts))
    )
    for one, other in zip(plain.screens, hurt.screens, strict=True):
        assert one.quantize(()).data == other.quantize(()).data
    alone = [
        each.worst.worst_db
        for screen in plain.screens
        for each in screen.compare([()], advance=quiet)
        if each
    ]
    (pooled,) = plain.worst_db([()], advance=quiet)
    assert pooled is not None
    assert min(alone) <= pooled <= max(alone)


def powers(noise: Any) -> Powers:
    return Powers(logits=np.asarray(noise)[:, None], outputs=np.asarray(noise))


def test_the_plain_candidate_wins_ties_and_doubts() -> None:
    random = np.random.default_rng(0)
    noise = random.exponential(1.0, 30)
    signal = powers(np.full(30, 100.0))
    lucky = noise.copy()
    lucky[np.argmax(lucky)] *= 0.5  # better on one sample only
    equal = [powers(noise), powers(noise)]
    assert verdict.best(signal, equal, [9, 9]) == 0
    assert verdict.best(signal, equal, [9, 8]) == 1
    assert verdict.best(signal, [*equal, powers(noise * 1.2)], [9, 9, 1]) == 0
    assert verdict.best(signal, [powers(noise), powers(lucky)], [9, 1]) == 0
    assert verdict.best(signal, [powers(noise), powers(noise * 1.2), powers(noise * 0.8)], [1, 2, 9]) == 2
    assert verdict.best(signal, [powers(np.zeros(30)), powers(noise)], [9, 1]) == 0


def test_the_interval_of_a_claim_holds_the_truth_and_the_choice_adds_no_optimism() -> None:
    random = np.random.default_rng(1)
    inside, gaps, naive = 0, [], []
    truth = -10 * np.log10(np.exp(0.5))  # of a log-normal noise with unit spread, against a signal of one
    for trial in range(120):
        common = random.normal(size=30)
        # Eight candidates that are equally good in truth, and differ on these samples by chance.
        noises = [powers(np.exp(0.8 * common + 0.6 * random.normal(size=30))) for _ in range(8)]
        signal = powers(np.ones(30))
        claim = verdict.claim(signal, noises, [1] * len(noises), folds=1, seed=trial)
        inside += claim.low_db <= truth <= claim.high_db
        gaps.append(claim.output_sqnr_db - truth)
        naive.append(max(verdict.outputs_db(signal, each) for each in noises) - truth)
    assert inside >= 120 * 0.85
    assert abs(float(np.mean(gaps))) < 0.25
    assert float(np.mean(naive)) > 0.5


def test_one_sample_with_nearly_all_noise_leaves_the_interval_finite() -> None:
    noise = np.full(16, 1e-5)
    noise[3] = 1.0  # one sample holds nearly all of it
    powers = [Powers(logits=each[:, None], outputs=each) for each in (np.ones(16), noise)]
    claim = verdict.claim(powers[0], powers[1:], [1], folds=4, seed=0)
    # The optimism of the choice is taken off the SQNR, and may take it below the worst sample's 0 dB.
    assert -10 < claim.low_db <= claim.output_sqnr_db < claim.high_db <= 50.0 + 1e-9
