"""Each worker job imports only what it needs, seen in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.convert

OPTIMIZER = "edgeq_converters.quantization"
TRAINING = "edgeq_converters.training"
# The protocol names the reports of pruning and tuning, and the source of a loss: all are plain values.
VALUES = {
    "edgeq_converters.training",
    "edgeq_converters.training.loss_source",
    "edgeq_converters.training.settings",
    "edgeq_converters.training.pruning",
    "edgeq_converters.training.pruning.report",
    "edgeq_converters.training.qat",
    "edgeq_converters.training.qat.report",
}


def loaded_by(job: str) -> set[str]:
    """Return the converters' modules in a fresh process that imported a job as the worker does."""
    program = (
        "import sys; from edgeq_converters.worker import __main__; "
        f"import edgeq_converters.worker.jobs.{job}; "
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=120, check=True
    )
    return {name for name in done.stdout.split() if name.startswith("edgeq_converters.")}


def optimizing(modules: set[str]) -> set[str]:
    return {name for name in modules - VALUES if name.startswith((OPTIMIZER, TRAINING))}


@pytest.mark.parametrize("job", ["evaluate", "inspect", "latency", "edgetpu"])
def test_running_a_model_loads_no_optimizer_and_no_training(job: str) -> None:
    assert optimizing(loaded_by(job)) == set()


def test_the_guard_sees_an_optimizer() -> None:
    assert f"{OPTIMIZER}.integer" in optimizing(loaded_by("convert"))


@pytest.mark.slow
def test_keras_does_not_load_scikit_learn_and_other_code_can() -> None:
    pytest.importorskip("sklearn")
    program = (
        "import sys; from edgeq_converters.worker import lean_keras; lean_keras.install(); "
        "import keras; print('sklearn' in sys.modules); "
        "import sklearn; print('sklearn' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=250, check=True
    )
    assert done.stdout.split() == ["False", "True"]
