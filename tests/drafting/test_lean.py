"""Drafts and checks in the lean installation, without the packages of the extras."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.drafting.conftest import Writer, classifier, samples

# The packages are installed here: the finder refuses them, as if they were not.
SCRIPT = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {
            "ai_edge_litert", "tensorflow", "keras", "tf_keras", "litert_quantizer", "flatbuffers",
            "threadpoolctl", "scipy", "sklearn", "PIL", "h5py",
        }:
            raise ImportError(f"{name} is not installed")
sys.meta_path.insert(0, Refuse())
from edgeq.cli import main
sys.exit(main(sys.argv[1:]))
"""


def lean(*words: str) -> tuple[int, str]:
    argv = [sys.executable, "-c", SCRIPT, *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stderr


def test_a_keras_model_and_arrays_need_no_extra(model: Path, write: Writer) -> None:
    write("all.npz", **samples(1000))
    status, err = lean("init")
    assert (status, err.splitlines()[-1]) == (0, "next: edgeq run blueprint.toml")
    status, err = lean("check", "blueprint.toml")
    assert status == 0
    assert "not compared" not in err


def test_images_need_pillow(model: Path, write: Writer, workspace: Path) -> None:
    write("all.npz", **samples(1000))
    assert lean("init")[0] == 0
    (workspace / "photos" / "cat").mkdir(parents=True)
    (workspace / "photos" / "cat" / "1.png").write_bytes(classifier())
    path = workspace / "blueprint.toml"
    path.write_text(path.read_text().replace('"evaluation.npz"', '"photos"'))
    status, err = lean("check", "blueprint.toml")
    assert status == 0
    assert "note: model and data were not compared: edgeq[convert]: Pillow is not installed" in err
