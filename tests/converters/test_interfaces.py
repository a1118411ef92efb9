"""The float .tflite has the inputs and outputs of its source: number, order, names, shapes, values."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.once import Once

pytestmark = [pytest.mark.convert, pytest.mark.slow]
Outcome = dict[str, Any]


@pytest.fixture(scope="module")
def outcomes(once: Once) -> dict[str, Outcome]:
    """{case of check_interfaces.py: what became of it}."""
    script = Path(__file__).with_name("check_interfaces.py")

    def build(folder: Path) -> None:
        argv = [sys.executable, "-P", str(script), str(folder)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=500)
        assert done.returncode == 0, done.stderr[-2000:]
        (folder / "outcomes.json").write_text(done.stdout)

    read: dict[str, Outcome] = json.loads((once.folder("interfaces", build) / "outcomes.json").read_text())
    return read


SAME = {
    "siamese": (["left", "right"], ["enc", "enc_1"]),
    "tower": (["left", "right"], ["tower", "tower_1"]),
    "three_states": (["seq"], ["rnn", "rnn_1", "rnn_2"]),
    "split": (["x"], ["split", "split_1", "split_2"]),
    "one_tensor_twice": (["x"], ["h", "h_1"]),
    "input_is_output": (["x"], ["same", "y"]),
    "dictionaries": (["zeta", "alpha"], ["scores", "boxes"]),
    "nested": (["x"], ["b_0", "b_1", "a"]),
    "numbered_layer_names": (["left", "right"], ["enc", "enc_1", "enc_2"]),
    "old_keras_shared": (["left", "right"], ["enc", "enc_1"]),
    "reversed_names": (["input_2", "input_1"], None),
    "same_tensor_in_signature": (["x"], None),
    "constant_output": (["x"], None),
    "unused_input": (["x", "z"], ["y"]),
    "two_signatures_one_chosen": (["x"], ["e"]),
    "usual_signature": (["x"], ["c"]),
}


@pytest.mark.parametrize("case", SAME)
def test_every_input_and_output_is_kept_in_order_with_its_name(
    case: str, outcomes: dict[str, Outcome]
) -> None:
    inputs, outputs = SAME[case]
    outcome = outcomes[case]
    assert [name for name, _, _ in outcome["inputs"]] == inputs, outcome
    if outputs is not None:
        assert [name for name, _, _ in outcome["outputs"]] == outputs
    assert outcome["sqnr_db"] > 100


SHAPES: dict[str, list[list[int]]] = {
    "scalar": [[]],
    "rows": [[3, 4]],
    "squeezed": [[12]],
    "no_batch": [[1, 12]],
    "scalar_input": [[1, 12]],
    "waveform_of_given_length": [[1, 12]],
    "open_with_shape": [[1, 12]],
    "constant_output": [[1, 12], [1]],
}


@pytest.mark.parametrize("case", SHAPES)
def test_outputs_and_inputs_without_a_batch_are_compared_whole(
    case: str, outcomes: dict[str, Outcome]
) -> None:
    outcome = outcomes[case]
    assert sorted(shape for _, shape, _ in outcome["outputs"]) == sorted(SHAPES[case]), outcome
    assert outcome["sqnr_db"] > 100


def test_a_state_is_an_input_and_an_output(outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes["state"]
    assert sorted(outcome["inputs"]) == [["h", [2, 1, 8], "float32"], ["x", [1, 6], "float32"]]
    assert sorted(outcome["outputs"]) == [["h", [2, 1, 8], "float32"], ["y", [1, 12], "float32"]]
    assert outcome["sqnr_db"] > 100


def test_a_variable_is_kept(outcomes: dict[str, Outcome]) -> None:
    assert outcomes["variable"]["outputs"] == [["total", [1], "float32"]]
    assert outcomes["variable"]["sqnr_db"] > 100, "source and file go on from sample to sample alike"


def test_random_layers_and_half_precision_are_converted(outcomes: dict[str, Outcome]) -> None:
    assert outcomes["random_layers"]["sqnr_db"] > 100
    assert outcomes["random_layer_and_custom_gradients"]["sqnr_db"] > 100
    half = outcomes["half"]
    assert [dtype for _, _, dtype in (*half["inputs"], *half["outputs"])] == ["float32", "float32"]
    assert half["sqnr_db"] > 40
    assert "half precision" in half["notes"][0]


REFUSED = {
    "two_signatures": ("EQ333", "--signature embed"),
    "unknown_signature": ("EQ333", "--signature embed"),
    "waveform": ("EQ306", "--shape wave=LENGTH"),
    "open": ("EQ306", "--shape a=1,N,6"),
    "shape_that_contradicts": ("EQ306", "open dimensions"),
    "shape_of_no_input": ("EQ306", "--shape a=SIZES"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_source_leaves_open_is_asked_for(case: str, outcomes: dict[str, Outcome]) -> None:
    code, hint = REFUSED[case]
    assert outcomes[case]["code"] == code
    assert hint in outcomes[case]["hint"]


def test_the_other_signatures_are_named(outcomes: dict[str, Outcome]) -> None:
    (note,) = outcomes["usual_signature"]["notes"]
    assert "only the signature `serving_default`" in note
    assert note.endswith("embed")
