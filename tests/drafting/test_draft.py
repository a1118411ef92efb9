"""`edgeq init`: a blueprint that works at once, from a model and its data."""

from __future__ import annotations

import json
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.blueprint import Scheme, Task, Technique, load_blueprint
from edgeq.blueprint.schema import shipped
from edgeq.cli import main
from edgeq.drafting import draft_blueprint
from edgeq.errors import DataError, DiskRefused, EdgeqError, ModelError, UsageError
from edgeq.values import DeviceKind
from tests.converters.graphs import Graph
from tests.converters.test_declared_interfaces import onnx, value
from tests.drafting.conftest import CLASSES, Writer, classifier, keras_archive, samples


def arrays_of(path: Path) -> dict[str, Any]:
    with np.load(path) as loaded:
        return {name: loaded[name] for name in loaded.files}


def test_one_file_becomes_a_blueprint_that_check_accepts(
    tflite: Path, write: Writer, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write("all.npz", **samples(1300), labels=np.array(["a", "b", "c"]))
    assert main(["init"]) == 0
    out, err = capsys.readouterr()
    assert (
        "split all.npz by label into calibration.npz (300 samples) and evaluation.npz (1000 samples)" in err
    )
    assert "note: task: classification, because y is one whole number a sample" in err
    assert err.splitlines()[-1] == "next: edgeq run blueprint.toml"
    assert "blueprint.toml" in out
    blueprint = load_blueprint(Path("blueprint.toml"))
    assert (blueprint.name, blueprint.source, blueprint.labels) == ("model", tflite, ("a", "b", "c"))
    assert blueprint.task is Task.CLASSIFICATION
    assert blueprint.schemes == (Scheme.FLOAT16, Scheme.INT8)
    assert blueprint.techniques == (Technique.CALIBRATION, Technique.MIXED_PRECISION)
    assert blueprint.budget.seconds == 1800
    assert blueprint.limits.stated() == {"accuracy_drop_max": 0.01}
    assert Path(".edgeq/blueprint.schema.json").read_text() == shipped()
    assert Path("blueprint.toml").read_text().startswith("#:schema .edgeq/blueprint.schema.json\n")
    assert data.exists()
    assert main(["check", "blueprint.toml"]) == 0
    assert "warning" not in capsys.readouterr().err


def test_the_document_says_what_was_chosen(
    model: Path, write: Writer, capsys: pytest.CaptureFixture[str]
) -> None:
    write("all.npz", **samples(60))
    assert main(["init", str(model), "--data", "all.npz", "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert body["schema"] == "edgeq.init/1"
    assert (body["source_kind"], body["task"]) == ("keras", "classification")
    assert body["inputs"] == [{"name": "x", "shape": [1, 4], "dtype": "float32"}]
    assert [(part["role"], part["samples"], part["created"]) for part in body["data"]] == [
        ("calibration", 30, True),
        ("evaluation", 30, True),
    ]
    # 5 of 30 samples must be lost to show a drop: 16.7 %, rounded up to half a point.
    assert body["limits"] == {"accuracy_drop_max": 0.17}
    assert any("500 samples show a drop of 1 point" in text for text in body["warnings"])


def test_given_data_is_only_checked(model: Path, write: Writer) -> None:
    write("c.npz", x=samples(20, seed=1)["x"])
    write("e.npz", **samples(600))
    draft = draft_blueprint(model, calibration=Path("c.npz"), evaluation=Path("e.npz"))
    assert (draft.new_files, draft.shared) == ((), 0)
    draft.write()
    blueprint = load_blueprint(Path("blueprint.toml"))
    assert (blueprint.calibration, blueprint.evaluation) == (Path("c.npz"), Path("e.npz"))


def test_without_calibration_data_there_is_no_int8(model: Path, write: Writer) -> None:
    write("e.npz", **samples(600))
    draft = draft_blueprint(model, evaluation=Path("e.npz"))
    assert draft.schemes == (Scheme.FLOAT16,)
    assert any("no int8" in text for text in draft.warnings)
    assert draft.write().techniques == ()


def test_calibration_data_is_taken_from_training_data(model: Path, write: Writer) -> None:
    write("train.npz", **samples(1000, seed=1))
    write("test.npz", **samples(600))
    draft = draft_blueprint()
    assert [(part.role, str(part.path), part.samples) for part in draft.data] == [
        ("calibration", "calibration.npz", 300),
        ("evaluation", "test.npz", 600),
        ("training", "train.npz", 1000),
    ]
    assert draft.write().techniques == tuple(Technique)
    Path("model.tflite").write_bytes(classifier())
    draft = draft_blueprint(
        Path("model.tflite"),
        calibration=Path("train.npz"),
        evaluation=Path("test.npz"),
        training=Path("train.npz"),
    )
    # A .tflite can be tuned towards its own outputs, but not pruned.
    assert Technique.QAT in draft.write(force=True).techniques
    assert Technique.PRUNING not in load_blueprint(Path("blueprint.toml")).techniques


def test_samples_in_both_data_sets_are_counted(model: Path, write: Writer) -> None:
    whole = samples(600)
    write("c.npz", x=whole["x"][:7].astype(np.float64))  # another type, the same values
    write("e.npz", **whole)
    draft = draft_blueprint(model, calibration=Path("c.npz"), evaluation=Path("e.npz"))
    assert draft.shared == 7
    assert any("7 of 600 samples of e.npz are in c.npz, too" in text for text in draft.warnings)


def test_a_kind_of_device_gets_a_table(model: Path, write: Writer) -> None:
    write("all.npz", **samples(60))
    blueprint = draft_blueprint(model, data=Path("all.npz"), kind=DeviceKind.CORAL).write()
    assert blueprint.schemes == (Scheme.INT8,)
    assert blueprint.device_schemes == {DeviceKind.CORAL: (Scheme.INT8,)}
    assert blueprint.kinds_with_other_limits(None) == ()


def test_the_comments_become_keys_when_they_are_uncommented(model: Path, write: Writer) -> None:
    night = np.arange(60) % 2 == 0
    write("all.npz", **samples(60), night=night, room=np.array(["hall", "kitchen"])[night.astype(int)])
    draft = draft_blueprint(model, data=Path("all.npz"))
    draft.write()
    text = draft.text.replace("# [[", "[[").replace("# [", "[")
    for key in (
        "name",
        "where",
        "accuracy_drop_max",
        "schemes",
        "latency_p95_max",
        "memory_peak_max",
        "size_max",
    ):
        text = text.replace(f"\n# {key} = ", f"\n{key} = ")
    Path("blueprint.toml").write_text(text)
    blueprint = load_blueprint(Path("blueprint.toml"))
    assert [str(part.where) for part in blueprint.slices] == ["night"]
    assert blueprint.limits.size_bytes_max == 65536
    assert blueprint.limits_for(DeviceKind.RASPBERRY_PI).latency_p95_ns_max == 20_000_000
    assert "room == 'hall'" in text or "room == 'kitchen'" in text


def test_other_places_names_and_quotes(model: Path, write: Writer, workspace: Path) -> None:
    write('it\'s "all".npz', **samples(60))
    place = workspace / "a folder" / "b.toml"
    draft = draft_blueprint(
        model,
        data=Path('it\'s "all".npz'),
        name="Ünser Modell.1",
        labels=['say "no"', "tab\there", "\\"],
        output=place,
        workspace=workspace,
    )
    blueprint = draft.write()
    assert blueprint.name == "nser-modell.1"
    assert blueprint.labels == ('say "no"', "tab\there", "\\")
    assert tomllib.loads(place.read_text())["model"]["source"] == "../model.keras"
    assert place.read_text().startswith("#:schema ../.edgeq/blueprint.schema.json\n")
    assert (workspace / "a folder" / "calibration.npz").exists()


def test_a_blueprint_in_a_new_folder(model: Path, write: Writer) -> None:
    data = write("e.npz", **samples(600))
    blueprint = draft_blueprint(model, evaluation=data, output=Path("new/folder/b.toml")).write()
    assert blueprint.source.samefile(model)


def test_a_small_set_shows_no_drop(model: Path, write: Writer) -> None:
    write("c.npz", **samples(3, seed=1))
    write("e.npz", **samples(1))
    draft = draft_blueprint(model, calibration=Path("c.npz"), evaluation=Path("e.npz"))
    assert draft.limit.key == "output_sqnr_db_min"
    assert any("500 samples show a drop of 1 point" in text for text in draft.warnings)


def test_tasks_are_guessed_with_their_labels(workspace: Path, write: Writer) -> None:
    one = keras_archive(Path("one.keras"), classes=1)
    x = samples(600)["x"]
    write("e.npz", x=x, y=x[:, 0] * 0.5)
    draft = draft_blueprint(one, evaluation=Path("e.npz"))
    assert (draft.task, draft.limit.key) == (Task.REGRESSION, "output_sqnr_db_min")
    three = keras_archive(Path("three.keras"))
    write("m.npz", x=x, y=(x[:, :CLASSES] > 0).astype(np.int64))
    draft = draft_blueprint(three, evaluation=Path("m.npz"))
    assert draft.task is Task.MULTI_LABEL
    write("u.npz", x=x)
    draft = draft_blueprint(three, evaluation=Path("u.npz"))
    assert (draft.task, draft.limit.key, draft.limit.value) == (Task.CLASSIFICATION, "agreement_min", 0.99)
    draft = draft_blueprint(one, evaluation=Path("u.npz"))
    assert draft.task is None
    assert draft.write().task is None


def test_a_folder_of_images_is_split_and_names_the_classes(workspace: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    built = Graph()
    x = built.tensor("image", (1, 4, 4, 3))
    axes = built.tensor("axes", (2,), dtype=np.int32, values=np.array([1, 2]))
    y = built.tensor("scores", (1, 3))
    built.op("MEAN", [x, axes], [y], options="ReducerOptions")
    Path("rgb.tflite").write_bytes(built.ends([x], [y]).data())
    random = np.random.default_rng(0)
    for name in ("blue", "green", "red"):
        folder = workspace / "photos" / name
        folder.mkdir(parents=True)
        for number in range(8):
            pixels = random.integers(0, 256, (5, 5, 3), np.uint8)
            image.fromarray(pixels).save(folder / f"{number}.png")
    draft = draft_blueprint()
    assert draft.labels == ("blue", "green", "red")
    draft.write()
    first, second = arrays_of(Path("calibration.npz")), arrays_of(Path("evaluation.npz"))
    assert first["x"].shape == (12, 4, 4, 3)
    assert first["x"].dtype == np.uint8
    assert np.bincount(first["y"]).tolist() == np.bincount(second["y"]).tolist() == [4, 4, 4]


def test_an_onnx_model_takes_data_in_both_layouts(workspace: Path, write: Writer) -> None:
    Path("m.onnx").write_bytes(onnx([value("image", ["N", 3, 6, 5])], [value("scores", ["N", CLASSES])]))
    x = np.random.default_rng(0).normal(size=(600, 6, 5, 3)).astype(np.float32)
    y = np.arange(600) % CLASSES
    write("last.npz", x=x, y=y)
    write("first.npz", x=x.transpose(0, 3, 1, 2), y=y)
    draft = draft_blueprint(Path("m.onnx"), evaluation=Path("last.npz"), calibration=Path("first.npz"))
    assert draft.interface.kind == "onnx"
    assert not [text for text in draft.warnings if "channels first" in text]
    draft = draft_blueprint(Path("m.onnx"), evaluation=Path("first.npz"), calibration=Path("last.npz"))
    assert [text for text in draft.warnings if "first.npz has the channels first" in text]
    assert draft.shared == 600
    write("bad.npz", x=x[:, :4], y=y)
    error = refused(model=Path("m.onnx"), evaluation=Path("bad.npz"))
    assert error.message == "bad.npz: expected `x` of shape (n, 3, 6, 5), got (n, 4, 5, 3)"


def refused(**arguments: Any) -> EdgeqError:
    with pytest.raises(EdgeqError) as caught:
        draft_blueprint(**arguments).write()
    assert not Path("blueprint.toml").exists()
    return caught.value


def test_data_that_does_not_fit_is_the_error_of_a_conversion(model: Path, write: Writer) -> None:
    write("wide.npz", **samples(60, features=9))
    error = refused(model=model, data=Path("wide.npz"))
    assert (type(error), error.reported_code) == (DataError, "EQ203")
    assert error.message == "wide.npz: expected `x` of shape (n, 4), got (n, 9)"
    whole = samples(60)
    write("outside.npz", x=whole["x"], y=whole["y"] + 1)
    error = refused(model=model, data=Path("outside.npz"))
    assert (error.reported_code, error.expected) == ("EQ208", "labels from 0 to 2")
    write("count.npz", x=whole["x"], y=whole["y"][:50])
    assert refused(model=model, data=Path("count.npz")).reported_code == "EQ206"
    write("single.npz", x=whole["x"], y=np.int64(1))
    assert refused(model=model, data=Path("single.npz")).reported_code == "EQ206"
    write("hot.npz", x=whole["x"], y=np.eye(3)[whole["y"]])
    assert refused(model=model, data=Path("hot.npz")).hint == "y = y.argmax(1)"


def test_what_cannot_be_split_is_refused(model: Path, write: Writer) -> None:
    one = samples(1)
    write("same.npz", x=np.repeat(one["x"], 9, axis=0), y=np.repeat(one["y"], 9))
    error = refused(model=model, data=Path("same.npz"))
    assert (error.reported_code, error.got) == ("EQ202", "9 samples that must stay together")


def test_models_that_cannot_be_converted_are_refused(workspace: Path, write: Writer) -> None:
    write("all.npz", **samples(60))
    built = Graph()
    x, y = built.tensor("x", (1, 4), dtype=np.int8), built.tensor("y", (1, 4), dtype=np.int8)
    built.op("RELU", [x], [y])
    Path("int8.tflite").write_bytes(built.ends([x], [y]).data())
    error = refused(model=Path("int8.tflite"), data=Path("all.npz"))
    assert (type(error), error.reported_code) == (ModelError, "EQ304")
    config = {
        "layers": [{"class_name": "InputLayer", "config": {"name": "a", "batch_shape": [None, None, 3]}}]
    }
    ends = {"input_layers": [["a", 0, 0]], "output_layers": [["a", 0, 0]]}
    with zipfile.ZipFile("open.keras", "w") as archive:
        archive.writestr(
            "config.json", json.dumps({"class_name": "Functional", "config": {**config, **ends}})
        )
    error = refused(model=Path("open.keras"), data=Path("all.npz"))
    assert error.reported_code == "EQ306"
    assert "with --shape a=1,N,3 fixes them" in error.hint
    Path("model.tflite").write_bytes(b"not a model at all")
    assert refused(model=Path("model.tflite"), data=Path("all.npz")).reported_code == "EQ302"
    assert refused(model=Path("none.keras"), data=Path("all.npz")).reported_code == "EQ301"


def test_files_are_never_replaced(model: Path, write: Writer, capsys: pytest.CaptureFixture[str]) -> None:
    write("all.npz", **samples(60))
    Path("evaluation.npz").write_bytes(b"mine")
    assert main(["init", str(model), "--data", "all.npz"]) == 2
    assert "evaluation.npz: exists already, and data is never replaced" in capsys.readouterr().err
    assert Path("evaluation.npz").read_bytes() == b"mine"
    assert not Path("calibration.npz").exists()
    Path("evaluation.npz").unlink()
    Path("blueprint.toml").write_text("mine")
    assert main(["init", str(model), "--data", "all.npz"]) == 2
    assert "--force" in capsys.readouterr().err
    assert Path("blueprint.toml").read_text() == "mine"
    assert main(["init", str(model), "--data", "all.npz", "--force"]) == 0
    assert main(["init", str(model), "--evaluation", "evaluation.npz", "--force"]) == 0


def test_a_blueprint_never_replaces_what_it_is_made_of(
    model: Path, write: Writer, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write("all.npz", **samples(60))
    content = model.read_bytes()
    draft = draft_blueprint(model, data=data, output=model)
    with pytest.raises(UsageError, match=r"would replace model\.keras"):
        draft.write(force=True)
    assert main(["init", str(model), "--data", str(data), "-o", str(model), "--force"]) == 2
    assert "the output would replace the input model.keras" in capsys.readouterr().err
    draft = draft_blueprint(model, data=data, output=model / "blueprint.toml")
    with pytest.raises(DiskRefused, match="not a folder"):
        draft.write()
    assert model.read_bytes() == content
    assert sorted(path.name for path in Path().iterdir()) == ["all.npz", "model.keras"]


def test_a_failure_leaves_no_new_file(model: Path, write: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    write("all.npz", **samples(60))
    draft = draft_blueprint(model, data=Path("all.npz"))
    Path(".edgeq").write_text("a file where the folder must be")
    with pytest.raises(OSError, match="edgeq"):
        draft.write()
    assert sorted(path.name for path in Path().iterdir()) == [".edgeq", "all.npz", "model.keras"]


def test_names_of_classes_must_fit(model: Path, write: Writer, capsys: pytest.CaptureFixture[str]) -> None:
    write("all.npz", **samples(60), labels=np.array(["a", "b"]))
    assert main(["init", str(model), "--data", "all.npz", "--labels", "a,b,c,d"]) == 2
    assert "--labels: expected 3 names, one for each value of the output, got 4" in capsys.readouterr().err
    Path("names.txt").write_text("no\nyes\nmaybe\n")
    assert main(["init", str(model), "--data", "all.npz", "--labels", "names.txt"]) == 0
    assert load_blueprint(Path("blueprint.toml")).labels == ("no", "yes", "maybe")
    draft = draft_blueprint(model, data=Path("all.npz"))
    assert draft.labels == ()
    assert any("names 2 classes, and the output has 3" in text for text in draft.warnings)


def test_nothing_to_measure_on(model: Path, write: Writer) -> None:
    write("c.npz", **samples(60))
    error = refused(model=model, calibration=Path("c.npz"))
    assert (type(error), error.subject) == (UsageError, "--evaluation")
    write("e.npz", **samples(60))
    assert refused(model=model, data=Path("c.npz"), evaluation=Path("e.npz")).subject == "--data"
