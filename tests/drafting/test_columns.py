"""Columns of the data that slices can name, and examples of conditions on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeq.blueprint import parse_condition
from edgeq.drafting import draft_blueprint
from edgeq.drafting.columns import column_names, conditions
from edgeq_converters.values import TensorInfo
from tests.drafting.conftest import Writer, samples

X = TensorInfo(name="serving_default_audio:0", shape=(1, 4), dtype="float32")


def test_columns_have_one_value_a_sample_and_feed_no_input(write: Writer) -> None:
    more = {"night": np.zeros(9, np.bool_), "snr_db": np.arange(9.0), "room": np.array(["a"] * 9)}
    path = write(
        "d.npz",
        **samples(9),
        **more,
        sequence_id=np.arange(9),
        labels=np.array(["p", "q"]),
        audio=np.arange(9.0),
        input_1=np.arange(9.0),
        y_box=np.arange(9.0),
        map=np.zeros((9, 2)),
        **{"not a name": np.arange(9)},
    )
    assert column_names(path, [X]) == ("night", "room", "snr_db")


def test_a_single_array_is_the_input_whatever_its_name(write: Writer) -> None:
    assert column_names(write("d.npz", wave=np.arange(9.0), y=np.arange(9)), [X]) == ()


def test_other_files_have_none(workspace: Path, write: Writer) -> None:
    for name, content in {"a.npy": b"\x93NUMPY", "b.npz": b"", "c.npz": b"PK\5\6" + bytes(18)}.items():
        Path(name).write_bytes(content)
        assert column_names(Path(name), [X]) == ()
    path = write("d.npz", x=np.zeros((9, 4)), night=np.zeros(9))
    path.write_bytes(path.read_bytes().replace(b"\x93NUMPY", b"\x93NUMPI"))
    assert column_names(path, [X]) == ()
    assert column_names(workspace, [X]) == ()


def test_examples_of_conditions_select_samples() -> None:
    columns = {
        "night": np.array([True, False]),
        "snr_db": np.array([1.0, 2.0, 9.0]),
        "room": np.array(["hall", "lab", "lab"]),
        "owner": np.array(["it's"]),
    }
    examples = conditions(columns)
    assert examples == ("night", "room == 'lab'", "snr_db < 2")
    assert [str(parse_condition(example)) for example in examples] == list(examples)


def test_columns_cause_no_remark(model: Path, write: Writer) -> None:
    write("all.npz", **samples(1200), night=np.arange(1200) < 200, room=np.array(["lab"] * 1200))
    draft = draft_blueprint(model, data=Path("all.npz"))
    assert not [text for text in (*draft.notes, *draft.warnings) if "not used" in text]
    assert 'where = "night"' in draft.text
    write("b.npz", **samples(1200), other=np.zeros((1200, 2)))
    draft = draft_blueprint(model, evaluation=Path("b.npz"))
    assert any("no input for `other`; not used" in text for text in draft.warnings)


@pytest.mark.usefixtures("workspace")
def test_a_split_keeps_the_columns(model: Path, write: Writer) -> None:
    whole = {**samples(100), "room": np.array(["hall", "lab"] * 50)}
    draft = draft_blueprint(model, data=write("all.npz", **whole))
    draft.write()
    with np.load("evaluation.npz") as part:
        rooms = {row.tobytes(): room for row, room in zip(whole["x"], whole["room"], strict=True)}
        assert [rooms[row.tobytes()] for row in part["x"]] == part["room"].tolist()
