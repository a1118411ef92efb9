"""The translation of a float .tflite to a differentiable function: every operation against the runtime."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.converters.operation_examples import OPERATIONS as EXAMPLES

pytestmark = [pytest.mark.convert, pytest.mark.slow]
UNTRANSLATED = {
    "BATCH_TO_SPACE_ND", "DILATE", "FILL", "L2_POOL_2D", "MATRIX_DIAG", "ONE_HOT", "REVERSE_SEQUENCE",
    "SCATTER_ND", "SEGMENT_SUM", "SPACE_TO_BATCH_ND", "TOPK_V2",
}  # fmt: skip
"""Examples whose operation, or whose form of it, is refused by name."""
LEAST_DB = 90.0


@pytest.fixture(scope="module")
def checked() -> dict[str, Any]:
    """What `check_translation.py` printed; it runs once, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.converters.check_translation"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_each_operation_computes_what_the_runtime_does(checked: dict[str, Any]) -> None:
    examples = checked["examples"]
    assert set(EXAMPLES) < set(examples)
    translated = {name: each for name, each in examples.items() if "error" not in each}
    assert set(examples) - set(translated) == UNTRANSLATED
    far = {name: each for name, each in translated.items() if each["decibels"] < LEAST_DB}
    assert not far
    assert not [name for name, each in translated.items() if not each["finite"]]


def test_every_translated_kind_has_an_example(checked: dict[str, Any]) -> None:
    shown = {kind for each in checked["examples"].values() if "error" not in each for kind in each["kinds"]}
    assert set(checked["kinds"]) <= shown


def test_an_operation_without_a_translation_is_named(checked: dict[str, Any]) -> None:
    for name in UNTRANSLATED:
        assert f"tuning cannot train through {name}" in checked["examples"][name]["error"]
