"""A model of 300 MB: the worker's memory stays below three times the model and 1 GB."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")

from edgeq_converters.recipe import Recipe
from edgeq_converters.values import Scheme
from edgeq_converters.worker.protocol import ConvertJob, job_to_json

pytestmark = [pytest.mark.convert, pytest.mark.slow]
# A child's peak counts from its fork on, when it is as large as its parent: a small parent starts it.
MEASURE = """
import os, resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, done.returncode, done.stdout[-800:])
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float .tflite of 302 MB."""
    path = tmp_path_factory.mktemp("large") / "large.tflite"
    script = Path(__file__).with_name("large_model.py")
    subprocess.run([sys.executable, str(script), str(path)], check=True, timeout=120)
    assert path.stat().st_size > 300e6
    return path


@pytest.mark.parametrize("scheme", ["float16", "dynamic", "int8"])
def test_the_worker_stays_small(large: Path, tmp_path: Path, scheme: str) -> None:
    np.savez(tmp_path / "c.npz", x=np.random.default_rng(0).normal(size=(20, 2048)).astype(np.float32))
    output, size = tmp_path / "o.tflite", large.stat().st_size
    job = ConvertJob(
        source=large,
        output=output,
        recipe=Recipe(scheme=Scheme(scheme)),
        data=tmp_path / "c.npz",
        workdir=tmp_path,
    )
    (tmp_path / "job.json").write_text(json.dumps(job_to_json(job)))
    worker = [sys.executable, "-P", "-m", "edgeq_converters.worker", str(tmp_path / "job.json")]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *worker],
        capture_output=True,
        text=True,
        timeout=250,
        check=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
    )
    kilobytes, status, *error = done.stdout.split(maxsplit=2)
    assert status == "0", error
    assert output.stat().st_size < size / 1.9
    assert int(kilobytes) * 1024 < 3 * size + 1e9
