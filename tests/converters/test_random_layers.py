"""Keras models with random layers: each layer, each position and each activation behind them is converted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.once import Once

pytestmark = [pytest.mark.convert, pytest.mark.slow, pytest.mark.timeout(1800)]
POSITIONS = ("first", "between", "nested", "twice", "beside_another_input")


@pytest.fixture(scope="module")
def outcomes(once: Once) -> dict[str, dict[str, Any]]:
    """{case of check_random_layers.py: what became of it}."""
    script = Path(__file__).with_name("check_random_layers.py")

    def build(folder: Path) -> None:
        argv = [sys.executable, "-P", str(script)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=1700)
        assert done.returncode == 0, done.stderr[-2000:]
        (folder / "outcomes.json").write_text(done.stdout)

    folder = once.folder("random-layers", build)
    read: dict[str, dict[str, Any]] = json.loads((folder / "outcomes.json").read_text())
    return read


def test_every_layer_is_tried(outcomes: dict[str, dict[str, Any]]) -> None:
    assert len({case.split()[0] for case in outcomes if case.endswith(POSITIONS)}) >= 30


@pytest.mark.parametrize("position", [*POSITIONS, "activations"])
def test_a_random_layer_is_converted_wherever_it_is(
    position: str, outcomes: dict[str, dict[str, Any]]
) -> None:
    cases = {case: each for case, each in outcomes.items() if case.endswith(f" {position}")}
    assert len(cases) >= (3 if position == "activations" else 8)
    assert [case for case, each in cases.items() if "problem" in each] == []
    converted = {case: each for case, each in cases.items() if each}
    # Keras cannot load its own Equalization at two of the positions.
    assert {case.split()[0] for case in set(cases) - set(converted)} <= {"Equalization"}
    assert [case for case, each in converted.items() if each["sqnr_db"] < 60] == []
    # Inference needs no seed: nothing of it is left, and the model keeps no state.
    assert [case for case, each in converted.items() if each["keeps_state"] or not each["clean"]] == []


def test_a_layer_that_is_random_in_inference_is_refused(outcomes: dict[str, dict[str, Any]]) -> None:
    # A constant in place of its seed would convert it, with one frozen draw.
    assert "StatelessRandomNormal" in outcomes["a layer that is random in inference"]["problem"]
