"""The choice of ranges, equalization and correction on held-out samples, and its parts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

pytestmark = [
    pytest.mark.convert,
    # litert-quantizer's own; conversions run in a child process, where warnings stay warnings.
    pytest.mark.filterwarnings("ignore:.*preserve_all_tensors:UserWarning"),
]
pytest.importorskip("ai_edge_litert")

from edgeq_converters.calibration.histogram import Histogram  # noqa: E402
from edgeq_converters.calibration.observe import observe  # noqa: E402
from edgeq_converters.calibration.observed import Observed  # noqa: E402
from edgeq_converters.calibration.qparams import INT8  # noqa: E402
from edgeq_converters.calibration.ranges import Ranges  # noqa: E402
from edgeq_converters.calibration.scale_groups import scale_groups  # noqa: E402
from edgeq_converters.data.partition import HeldOutSamples  # noqa: E402
from edgeq_converters.data.samples import Samples  # noqa: E402
from edgeq_converters.errors import ConverterError  # noqa: E402
from edgeq_converters.graph import tflite_file  # noqa: E402
from edgeq_converters.graph.model import Model  # noqa: E402
from edgeq_converters.graph.normalize import normalize  # noqa: E402
from edgeq_converters.metrics import sqnr_db  # noqa: E402
from edgeq_converters.quantization import autotune  # noqa: E402
from edgeq_converters.quantization.autotune import making, tensor_ranges, verdict  # noqa: E402
from edgeq_converters.quantization.autotune.judging import Judge  # noqa: E402
from edgeq_converters.recipe import Effort, Recipe, Switch  # noqa: E402
from edgeq_converters.values import Scheme, warnings_of  # noqa: E402

from .graphs import Graph  # noqa: E402
from .nets import at_logits, net, quantized, quiet, samples  # noqa: E402


def no_ranges(fit: Samples) -> Ranges:
    assert len(fit)
    return {}


def best(model: Model, given: Samples, *, scheme: Scheme = Scheme.INT8, **switches: Any) -> autotune.Best:
    recipe = Recipe(scheme=scheme, **switches)
    return autotune.choose(
        model,
        Observed(groups=(observed(model, given),)),
        given,
        recipe=recipe,
        fixed_ranges=no_ranges,
        step=lambda what, total: quiet,
    )


def test_auto_chooses_by_held_out_samples_and_notes_the_gain() -> None:
    model = net(spread=1.5)
    given, other = samples(model, 120), samples(model, 200, seed=6)
    made = best(model, given)
    plain = quantized(model, given)
    expected = at_logits(model, other)
    assert (
        sqnr_db([at_logits(made.model, other)], [expected])
        > sqnr_db([at_logits(plain, other)], [expected]) + 1
    )
    assert made.equalized
    assert max(made.scores, key=lambda score: score.sqnr_db).candidate.equalized
    assert "held-out" in made.notes[0]
    assert warnings_of(made.notes) == ()
    assert made.model.data == best(model, given).model.data


@pytest.mark.slow
@pytest.mark.parametrize("scheme", [Scheme.INT8, Scheme.INT16X8])
def test_models_with_float_outputs_are_scored_at_the_logits_too(scheme: Scheme) -> None:
    model = normalize(net(spread=1.5))
    given, other = samples(model), samples(model, 200, seed=6)
    made = best(model, given, scheme=scheme, io="float32")
    got = at_logits(made.model, other)
    assert min(score.sqnr_db for score in made.scores) > 10
    reached = max(score.sqnr_db for score in made.scores)
    assert sqnr_db([got], [at_logits(model, other)]) == pytest.approx(reached, abs=12)


def test_switches_are_obeyed() -> None:
    model = net()
    given = samples(model)
    off = best(model, given, calibrator="minmax", bias_correction=Switch.OFF, equalization=Switch.OFF)
    assert off.model.data == quantized(model, given).data
    on = best(model, given, calibrator="mse", bias_correction=Switch.ON, equalization=Switch.ON)
    assert (on.calibrator, on.equalized, on.corrected, on.scores) == ("mse", True, True, ())


def test_with_too_few_samples_auto_means_minmax() -> None:
    model = net()
    made = best(model, samples(model, 3))
    assert (made.calibrator, made.equalized, made.corrected) == ("minmax", False, False)
    assert "too few" in made.notes[0]
    assert warnings_of(made.notes) == (made.notes[0],)


def pooled(peak: float) -> tuple[Model, Samples]:
    """Return x -> ADD -> AVERAGE_POOL_2D -> RESHAPE -> FULLY_CONNECTED, samples with one high pixel."""
    random = np.random.default_rng(0)
    graph: Any = Graph()
    x, a = graph.tensor("x", (1, 16, 16, 4)), graph.tensor("a", (1, 16, 16, 4))
    p, r, y = graph.tensor("p", (1, 1, 1, 4)), graph.tensor("r", (1, 4)), graph.tensor("y", (1, 3))
    one = graph.tensor("one", (1, 1, 1, 4), values=np.full(4, 0.5))
    graph.op("ADD", (x, one), (a,), options="AddOptions")
    graph.op(
        "AVERAGE_POOL_2D", (a,), (p,), options="Pool2DOptions",
        filterWidth=16, filterHeight=16, strideW=16, strideH=16, padding=1,
    )  # fmt: skip
    shape = graph.tensor("shape", (2,), dtype=np.int32, values=[1, 4])
    graph.op("RESHAPE", (p, shape), (r,), options="ReshapeOptions")
    w = graph.tensor("w", (3, 4), values=random.normal(size=(3, 4)))
    b = graph.tensor("b", (3,), values=np.zeros(3))
    graph.op("FULLY_CONNECTED", (r, w, b), (y,), options="FullyConnectedOptions")
    model = normalize(graph.ends([x], [y]).as_model("pooled"))
    values = random.uniform(0, 1, (24, 16, 16, 4)).astype(np.float32)
    values[0, 3, 3, :] = peak
    return model, Samples(inputs=model.inputs, arrays=(values,))


def observed(model: Model, given: Samples) -> Mapping[str, Histogram]:
    return observe(model, given, advance=quiet)


def test_moving_operations_share_the_scale_of_their_producer() -> None:
    model, _ = pooled(1.0)
    assert scale_groups(model) == {
        "x": ("x",),
        "a": ("a",),
        "p": ("a",),
        "r": ("a",),
        "y": ("y",),
    }


def test_a_concatenation_shares_one_scale_with_its_inputs() -> None:
    graph: Any = Graph()
    x, a, b, y = (graph.tensor(n, (1, 4)) for n in ("x", "a", "b", "y"))
    joined = graph.tensor("joined", (1, 8))
    graph.op("RELU", (x,), (a,))
    graph.op("ADD", (x, x), (b,), options="AddOptions")
    graph.op("CONCATENATION", (a, b), (joined,), options="ConcatenationOptions", axis=1)
    graph.op("RELU", (joined,), (y,))
    groups = scale_groups(graph.ends([x], [y]).as_model())
    assert groups["joined"] == groups["a"] == groups["b"] == ("a", "b")
    histograms = {}
    for name, top in (("a", 1.0), ("b", 5.0)):
        from edgeq_converters.calibration.histogram import Observer

        observer = Observer()
        observer.add(np.linspace(-1, top, 50, dtype=np.float32)[None])
        histograms[name] = observer.histogram()
    low, high = tensor_ranges.common_range(("a", "b"), histograms, calibrator="minmax", grid=INT8)
    assert (low, high) == (-1.0, 5.0)


def test_a_tensor_is_clipped_only_where_that_lowers_the_noise_at_the_logits() -> None:
    for peak, clipped in ((1.0, False), (20.0, True)):
        model, given = pooled(peak)
        choice = tensor_ranges.choose(
            model, observed(model, given), given, names=tensor_ranges.ALL, grid=INT8
        )
        # One pixel of 256 hardly shows in the mean, but its height sets the step of the pool's own output.
        assert (choice.calibrators["p"] != "minmax") is clipped, (peak, choice.calibrators)
        assert choice.calibrators["p"] == choice.calibrators["a"] == choice.calibrators["r"]
        assert choice.least <= min(choice.noise.values()) * 1.2


def test_the_measured_noise_predicts_that_of_the_integer_model() -> None:
    model, given = pooled(20.0)
    histograms = observed(model, given)
    choice = tensor_ranges.choose(model, histograms, given, names=tensor_ranges.ALL, grid=INT8)
    expected = at_logits(model, given)
    predicted_db = -10 * np.log10(choice.noise["minmax"])
    assert abs(sqnr_db([at_logits(quantized(model, given), given)], [expected]) - predicted_db) < 3


def test_among_equal_noises_the_widest_range_wins() -> None:
    tried = [(-1.0, 1.0), (-3.0, 3.0), (-2.0, 2.0), (-9.0, 9.0)]
    assert tensor_ranges.widest_of_best(tried, np.array([1.0, 1.05, 1.05, 2.0])) == 1
    assert tensor_ranges.widest_of_best(tried, np.array([1.0, 1.5, 1.5, 2.0])) == 0


def test_a_noise_that_is_not_a_number_never_wins_and_never_crashes() -> None:
    tried = [(-1.0, 1.0), (-3.0, 3.0), (-2.0, 2.0), (-9.0, 9.0)]
    assert tensor_ranges.widest_of_best(tried, np.array([1.0, 1.05, np.nan, np.nan])) == 1
    assert tensor_ranges.widest_of_best(tried, np.array([np.inf, 1.0, 1.0, np.nan])) == 1
    assert tensor_ranges.widest_of_best(tried, np.full(4, np.nan)) == 3


def test_an_output_that_another_operation_reads_is_measured() -> None:
    graph: Any = Graph()
    x, a, y = (graph.tensor(n, (1, 4)) for n in ("x", "a", "y"))
    graph.op("ADD", (x, x), (a,), options="AddOptions")
    graph.op("ADD", (a, x), (y,), options="AddOptions")
    model = normalize(graph.ends([x], [a, y]).as_model())
    rows = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    given = Samples(inputs=model.inputs, arrays=(rows,))
    choice = tensor_ranges.choose(model, observed(model, given), given, names=("minmax",), grid=INT8)
    assert set(choice.calibrators) == {"x", "a", "y"}
    assert 20 < -10 * np.log10(choice.noise["minmax"]) < 60


def test_a_model_too_costly_to_measure_per_tensor_tries_whole_model_calibrators(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(making, "MEASURED_BYTES", 1)
    model = net()
    made = best(model, samples(model, 120), equalization=Switch.OFF, bias_correction=Switch.OFF)
    assert [score.candidate.calibrator for score in made.scores] == list(tensor_ranges.WHOLE_MODEL)


def test_quick_tries_two_calibrators_without_equalization() -> None:
    model = net(spread=1.5)
    made = best(model, samples(model, 60), effort=Effort.QUICK)
    tried = {(score.candidate.calibrator, score.candidate.equalized) for score in made.scores}
    assert tried == {("minmax", False), ("mse", False)}
    assert made.claim is not None
    assert made.claim.folds == 1
    forced = best(model, samples(model, 60), effort=Effort.QUICK, equalization=Switch.ON)
    assert forced.equalized


@pytest.mark.slow
def test_a_greater_effort_corrects_more_candidates() -> None:
    model = net(spread=1.5)
    corrected = {}
    for effort in Effort:
        made = best(model, samples(model, 120), effort=effort)
        corrected[effort] = sum(score.candidate.corrected for score in made.scores)
    assert corrected[Effort.QUICK] <= corrected[Effort.STANDARD] <= corrected[Effort.BEST]
    assert corrected[Effort.QUICK] < corrected[Effort.BEST]


def test_quiet_tensors_keep_the_widest_range_and_fewer_runs_measure_the_loud_ones() -> None:
    model, given = pooled(20.0)
    histograms = observed(model, given)
    choices = [
        tensor_ranges.choose(model, histograms, given, names=tensor_ranges.ALL, grid=INT8, runs=runs)
        for runs in (math.inf, 8.0)
    ]
    assert all(choice.calibrators["a"] != "minmax" for choice in choices)
    assert set(choices[0].calibrators) == set(choices[1].calibrators)


def test_per_tensor_ranges_reach_the_file() -> None:
    model, given = pooled(20.0)
    made = best(model, given, equalization=Switch.OFF, bias_correction=Switch.OFF)
    assert made.calibrator == "per-tensor"
    tensors = made.model.graph.tensors
    scale, _ = next(
        tflite_file.quantization(t) or (0, 0) for t in tensors if tflite_file.tensor_name(t) == "a"
    )
    assert scale < 20.5 * 0.9 / 255


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.5, 1.5])
def test_int16x8_is_corrected_and_at_least_as_good_as_int8(spread: float) -> None:
    model = normalize(net(spread=spread))
    given, other = samples(model, 120), samples(model, 200, seed=6)
    reached = {}
    for scheme in (Scheme.INT8, Scheme.INT16X8):
        made = best(model, given, scheme=scheme)
        judge = Judge(model, HeldOutSamples(other))
        reached[scheme] = verdict.logits_db(judge.signal, judge.noise(made.model))
    plain = best(
        model,
        given,
        scheme=Scheme.INT16X8,
        calibrator="minmax",
        bias_correction=Switch.OFF,
        equalization=Switch.OFF,
    )
    rounded = verdict.logits_db(judge.signal, judge.noise(plain.model))
    assert made.corrected
    assert reached[Scheme.INT16X8] > rounded + 3
    assert reached[Scheme.INT16X8] > reached[Scheme.INT8] + 3


@pytest.mark.slow
def test_a_candidate_that_does_not_run_is_left_out_and_the_last_one_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = normalize(net(spread=1.5))
    given = samples(model, 120)
    noise = Judge.noise
    for failing in ("some", "all"):
        judged: list[bytes] = []

        def refuse(judge: Judge, made: Model, judged: list[bytes] = judged, failing: str = failing) -> Any:
            judged.append(made.data)
            if failing == "all" or len(judged) % 2 == 0:
                raise ConverterError("EQ303", made.subject, "the model does not run (planted)")
            return noise(judge, made)

        monkeypatch.setattr(Judge, "noise", refuse)
        if failing == "all":
            with pytest.raises(ConverterError, match="planted"):
                best(model, given)
        else:
            made = best(model, given)
            assert sum("left out, because the model does not run" in note for note in made.notes) >= 2
            assert made.scores
