"""`edgeq bundle` with files that are not models."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeq.cli import main


@pytest.mark.parametrize("model", ["absent.tflite", "."])
def test_a_model_that_is_not_there_is_named_and_nothing_is_made(
    workspace: Path, capsys: pytest.CaptureFixture[str], model: str
) -> None:
    argv = ["bundle", model, "-o", "out.eqb", "--name", "kws", "--data", "evaluation.npz"]
    assert main(argv) == 1
    err = capsys.readouterr().err
    assert f"error[EQ301]: {model}: no such model" in err
    assert "with `edgeq convert SOURCE -o MODEL`" in err
    assert list(workspace.rglob("*.eqb")) == []
    assert not (workspace / ".edgeq" / "keys").exists()
    assert list(workspace.glob("edgeq-crash-*")) == []
