"""`edgeq check`: targets that the data cannot show, contradictions, and data that does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.blueprint import load_blueprint
from edgeq.blueprint.schema import shipped
from edgeq.cli import main
from edgeq.drafting import Findings, examine_blueprint
from edgeq.errors import BlueprintError, DataError, EdgeqError
from tests.drafting.conftest import Writer, samples

HEAD = """\
schema_version = 1
name = "m"
[model]
source = "model.keras"
[data]
calibration = "c.npz"
evaluation = "e.npz"
[techniques]
allow = ["calibration"]
"""


@pytest.fixture
def data(model: Path, write: Writer) -> dict[str, Any]:
    """600 samples for evaluation, 20 others for calibration."""
    night = np.arange(600) < 30
    arrays = {
        **samples(600),
        "night": night,
        "snr_db": np.arange(600.0),
        "room": np.repeat(["hall", "lab"], 300),
    }
    write("e.npz", **arrays)
    write("c.npz", **samples(20, seed=1))
    return arrays


def findings(more: str = "", *, replace: tuple[str, str] = ("", "")) -> Findings:
    path = Path("blueprint.toml")
    path.write_text((HEAD + more).replace(*replace))
    return examine_blueprint(load_blueprint(path), path)


@pytest.mark.usefixtures("data")
def test_a_blueprint_that_holds_together_has_no_findings() -> None:
    result = findings("[require]\naccuracy_drop_max = 0.01\naccuracy_min = 0.9\n")
    assert result == Findings(samples=600, notes=(), warnings=())


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize(
    ("limits", "warning"),
    [
        (
            "accuracy_drop_max = 0.005",
            "accuracy_drop_max 0.5 %: 600 samples show no drop below 0.8333 %; 1000 samples would show it",
        ),
        ("accuracy_drop_max = 0", "accuracy_drop_max 0 %: 600 samples show no drop below 0.8333 %"),
        (
            "accuracy_drop_relative_max = 0.001",
            "accuracy_drop_relative_max 0.1 %: 600 samples show no drop below 0.8333 %; 5000 samples would "
            "show it",
        ),
        (
            "accuracy_min = 0.9999",
            "accuracy_min 99.99 %: one wrong answer of 600 is an accuracy of 99.83 %; 10000 samples allow "
            "one",
        ),
        (
            "accuracy_min = 0.999",
            "accuracy_min 99.9 %: one wrong answer of 600 is an accuracy of 99.83 %; 1000 samples allow one",
        ),
    ],
)
def test_limits_that_so_few_samples_cannot_show(limits: str, warning: str) -> None:
    assert findings(f"[require]\n{limits}\n").warnings == (warning,)
    (of_device,) = findings(f"[device.linux]\n{limits}\n").warnings
    assert of_device == warning.replace(" %:", " % for linux:", 1)


def test_the_smallest_class_decides_what_a_class_can_show(data: dict[str, Any], write: Writer) -> None:
    y = np.zeros(600, np.int64)
    y[:40] = 2
    write("e.npz", x=data["x"], y=y)
    (warning,) = findings("[require]\nclass_drop_max = 0.05\n").warnings
    assert warning == (
        "class_drop_max 5 %, class 2: 40 samples show no drop below 12.5 %; 100 samples would show it"
    )


def test_limits_of_accuracy_need_labels(data: dict[str, Any], write: Writer) -> None:
    write("e.npz", x=data["x"])
    (warning,) = findings("[require]\naccuracy_min = 0.9\nclass_drop_max = 0.1\nsize_max = '1 MB'\n").warnings
    assert warning.startswith("accuracy_min, class_drop_max: no run can measure it")


def test_a_task_that_is_left_out_or_has_no_classes(data: dict[str, Any], write: Writer) -> None:
    write("e.npz", x=data["x"], y=(data["x"][:, :3] > 0).astype(np.int64))
    assert findings().warnings == (
        'without [task] kind = "multi-label", labels are taken for classes; but y is 0 or 1 for each value of'
        " the output",
    )
    stated = "[task]\nkind = 'multi-label'\n[require]\naccuracy_min = 0.9\nece_max = 0.1\nsize_max = 9\n"
    (warning,) = findings(stated).warnings
    assert warning == "accuracy_min, ece_max: no run can measure it: the task is multi-label"


@pytest.mark.usefixtures("data")
def test_types_of_inputs_and_outputs_that_a_scheme_cannot_have() -> None:
    assert findings("[variants]\nschemes = ['float16']\nio = 'int8'\n").warnings == (
        "io int8 is for integer schemes, and variants.schemes has none",
    )
    assert findings("[variants]\nschemes = ['int8', 'int16x8']\nio = 'int8'\n").warnings == (
        "int16x8 cannot have io int8; it can have float32, int16",
    )


SLICE = "[[slices]]\nname = 's'\naccuracy_drop_max = 0.02\nwhere = "


@pytest.mark.usefixtures("data")
def test_a_slice_is_judged_by_its_own_samples() -> None:
    (warning,) = findings(SLICE + "'night'\n").warnings
    assert warning == (
        "accuracy_drop_max 2 % in slice s: 30 samples show no drop below 16.67 %; 250 samples would show it"
    )
    assert findings(SLICE + "'snr_db >= 100'\n").warnings == ()
    assert findings(SLICE + "\"room == 'lab'\"\n").warnings == ()


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize(
    ("where", "code", "words"),
    [
        ("'nigth'", "EQ205", "expected an array `nigth`"),
        ("'snr_db > 1000'", "EQ202", "slice 's' is empty"),
        ("'room < 5'", "EQ205", "expected numbers in `room`"),
        ("'x > 0'", "EQ203", "one value for each sample"),
    ],
)
def test_a_slice_that_the_data_does_not_have(where: str, code: str, words: str) -> None:
    with pytest.raises(DataError) as caught:
        findings(SLICE + where + "\n")
    assert caught.value.reported_code == code
    assert words in caught.value.message


@pytest.mark.usefixtures("data")
def test_schemes_and_kinds_of_devices_that_do_not_come_together() -> None:
    result = findings("[variants]\nschemes = ['float16']\n[device.coral]\nschemes = ['int8']\n")
    assert result.warnings == (
        "coral gets none of the variants: its schemes are int8, and variants.schemes has float16",
        "float16 is made, but allowed for none of coral",
    )
    both = "[device.coral]\nschemes = ['int8']\n[device.linux]\nschemes = ['float16']\n"
    assert findings(both).warnings == ()


def test_techniques_that_cannot_be_used_are_a_note(data: dict[str, Any], write: Writer) -> None:
    allow = ('allow = ["calibration"]', "")
    assert findings(replace=allow).notes == ("a run leaves out: pruning and qat: data.training is missing",)
    write("t.npz", **samples(20, seed=2))
    trained = ('[techniques]\nallow = ["calibration"]', 'training = "t.npz"')
    assert findings(replace=trained).notes == ()
    Path("model.keras").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(32))  # an .h5 file that says nothing
    notes = findings(replace=trained).notes
    assert notes[0] == "model.keras: shapes are known after a conversion; data was not compared"
    assert notes[1].startswith("a run leaves out: pruning and qat: expected a Functional or Sequential model")


def test_shared_samples_are_counted(data: dict[str, Any], write: Writer) -> None:
    write("c.npz", x=data["x"][:5])
    assert findings().warnings == (
        "5 of 600 samples of e.npz are in c.npz, too: the accuracy on them does not hold for new data",
    )


def error(more: str = "", *, replace: tuple[str, str] = ("", "")) -> EdgeqError:
    with pytest.raises(EdgeqError) as caught:
        findings(more, replace=replace)
    return caught.value


def test_data_that_does_not_fit_the_model(data: dict[str, Any], write: Writer) -> None:
    write("e.npz", x=data["x"], y=data["y"] + 1)
    assert (
        error().message
        == "e.npz: expected labels from 0 to 2, got 3 at index 0 (200 such labels)".replace(
            "index 0 (200", f"index {int(np.argmax(data['y'] == 2))} ({int((data['y'] == 2).sum())}"
        )
    )
    write("c.npz", x=samples(20, features=9)["x"])
    assert error().message == "c.npz: expected `x` of shape (n, 4), got (n, 9)"
    Path("c.npz").write_bytes(b"")
    assert error().reported_code == "EQ201"
    Path("model.keras").write_bytes(b"")
    assert error().reported_code == "EQ302"


@pytest.mark.usefixtures("data")
def test_names_of_classes_must_fit() -> None:
    wrong = error(replace=('source = "model.keras"', 'source = "model.keras"\nlabels = ["a", "b"]'))
    assert isinstance(wrong, BlueprintError)
    assert (
        wrong.message
        == "blueprint.toml: model.labels: expected 3 names, one for each value of the output, got 2"
    )


def test_what_only_a_conversion_shows_is_a_note(workspace: Path, data: dict[str, Any], write: Writer) -> None:
    (workspace / "saved").mkdir()
    (workspace / "saved" / "saved_model.pb").touch()
    (note,) = findings(replace=("model.keras", "saved")).notes
    assert note == "saved: shapes are known after a conversion; data was not compared"
    write("e.npz", x=data["x"], y=data["y"][:50])
    assert error(replace=("model.keras", "saved")).reported_code == "EQ206"


@pytest.mark.usefixtures("data")
def test_the_command_shows_notes_and_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    Path("blueprint.toml").write_text(HEAD + "[require]\naccuracy_drop_max = 0.005\n")
    assert main(["check", "blueprint.toml", "--json"]) == 0
    out, err = capsys.readouterr()
    body = json.loads(out)
    assert (body["samples"], body["notes"]) == (600, [])
    assert err.splitlines()[0] == f"warning: {body['warnings'][0]}"


def test_the_schema_is_printed_as_it_is_shipped(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["check", "--schema"], ["check", "none.toml", "--schema", "--json"]):
        assert main(words) == 0
        assert capsys.readouterr().out == shipped()
