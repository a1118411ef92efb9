"""The tables beside the model and its data: task, techniques, budget, slices, devices; and all limits."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from edgeq.blueprint import (
    Blueprint,
    Budget,
    Condition,
    Limits,
    Operator,
    Scheme,
    Slice,
    Task,
    Technique,
    load_blueprint,
    parse_blueprint,
    parse_condition,
)
from edgeq.errors import BlueprintError
from edgeq.values import DeviceKind

HEAD = """\
schema_version = 1
name = "m"
[model]
source = "m.keras"
[data]
calibration = "c.npz"
evaluation = "e.npz"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("m.keras", "c.npz", "e.npz", "t.npz", "v.npz"):
        (tmp_path / name).touch()
    return tmp_path


def parsed(folder: Path, more: str) -> Blueprint:
    path = folder / "blueprint.toml"
    path.write_text(HEAD + more)
    return load_blueprint(path)


def test_what_is_left_out_has_a_default(folder: Path) -> None:
    blueprint = parsed(folder, "")
    assert (blueprint.task, blueprint.training, blueprint.validation) == (None, None, None)
    assert blueprint.techniques == tuple(Technique)
    assert blueprint.budget == Budget(seconds=None, seed=0)
    assert (blueprint.slices, blueprint.device_schemes) == ((), {})
    assert blueprint.limits == Limits()


def test_every_limit_is_read(folder: Path) -> None:
    stated = {
        "accuracy_drop_max": 0.01,
        "accuracy_drop_relative_max": 0.02,
        "accuracy_min": 0.9,
        "class_drop_max": 0.05,
        "agreement_min": 0.97,
        "output_sqnr_db_min": 20.5,
        "ece_max": 0.04,
        "robustness_drop_max": 0.03,
        "size_max": "64 KiB",
        "latency_p95_max": "5 ms",
        "memory_peak_max": "200 MB",
        "energy_max": "2.5 mJ",
    }
    assert len(stated) == len(fields(Limits)) - 1  # all but `written`
    lines = "\n".join(f"{key} = {value!r}" for key, value in stated.items())
    limits = parsed(folder, f"[require]\n{lines}\n").limits
    assert limits == Limits(
        accuracy_drop_max=0.01,
        accuracy_drop_relative_max=0.02,
        accuracy_min=0.9,
        class_drop_max=0.05,
        agreement_min=0.97,
        output_sqnr_db_min=20.5,
        ece_max=0.04,
        robustness_drop_max=0.03,
        size_bytes_max=65536,
        latency_p95_ns_max=5_000_000,
        memory_peak_bytes_max=200_000_000,
        energy_nj_max=2_500_000,
    )
    assert limits.text("energy_nj_max") == "2.5 mJ"
    assert parsed(folder, "[require]\nsize_max = 1000\nenergy_max = 7\n").limits == Limits(
        size_bytes_max=1000, energy_nj_max=7
    )


def test_training_and_validation_data_are_files(folder: Path) -> None:
    blueprint = parsed(folder, 'training = "t.npz"\nvalidation = "v.npz"\n')
    assert (blueprint.training, blueprint.validation) == (folder / "t.npz", folder / "v.npz")
    with pytest.raises(
        BlueprintError, match=r"blueprint.toml:8: expected a file that exists, got .*none.npz"
    ):
        parsed(folder, 'training = "none.npz"\n')


def test_task_techniques_and_budget(folder: Path) -> None:
    blueprint = parsed(
        folder,
        '[task]\nkind = "multi-label"\n[techniques]\nallow = ["qat", "calibration", "qat"]\n'
        '[budget]\ntime = "1.5 min"\nseed = 7\n',
    )
    assert blueprint.task is Task.MULTI_LABEL
    assert blueprint.techniques == (Technique.CALIBRATION, Technique.QAT)  # in the order of a run
    assert blueprint.budget == Budget(seconds=90.0, seed=7)
    assert parsed(folder, "[techniques]\nallow = []\n").techniques == ()


def test_a_kind_of_device_has_schemes_of_its_own(folder: Path) -> None:
    blueprint = parsed(
        folder,
        "[variants]\nschemes = ['float16', 'int8', 'dynamic']\n"
        "[device.coral]\nschemes = ['int8', 'int4']\n[device.linux]\nsize_max = '1 MB'\n",
    )
    assert blueprint.schemes_for(DeviceKind.CORAL) == (Scheme.INT8,)
    assert blueprint.schemes_for(DeviceKind.LINUX) == blueprint.schemes
    assert blueprint.schemes_for(None) == blueprint.schemes
    assert blueprint.kinds_with_other_limits(None) == (DeviceKind.LINUX,)


def test_slices_have_a_condition_and_limits(folder: Path) -> None:
    blueprint = parsed(
        folder,
        "[[slices]]\nname = 'night'\nwhere = 'night'\naccuracy_drop_max = 0.02\n"
        "[[slices]]\nname = 'noisy'\nwhere = 'snr_db < 5'\naccuracy_min = 0.8\nagreement_min = 0.9\n",
    )
    assert blueprint.slices == (
        Slice(
            name="night",
            where=Condition(column="night", operator=Operator.EQUAL, value=True),
            limits=Limits(accuracy_drop_max=0.02),
        ),
        Slice(
            name="noisy",
            where=Condition(column="snr_db", operator=Operator.LESS, value=5.0),
            limits=Limits(accuracy_min=0.8, agreement_min=0.9),
        ),
    )


@pytest.mark.parametrize(
    ("text", "column", "operator", "value"),
    [
        ("night", "night", "==", True),
        ("not night", "night", "==", False),
        (" snr_db>=-2.5 ", "snr_db", ">=", -2.5),
        ("room == 'living room'", "room", "==", "living room"),
        ('room != "it\'s"', "room", "!=", "it's"),
        ("note == 'night'", "note", "==", "night"),
    ],
)
def test_conditions(text: str, column: str, operator: str, value: float | str | bool) -> None:
    condition = parse_condition(text)
    assert condition == Condition(column=column, operator=Operator(operator), value=value)
    if "it's" not in text:
        assert parse_condition(str(condition)) == condition


@pytest.mark.parametrize(
    ("more", "line", "words"),
    [
        ("[task]\n", 8, "`task.kind` is missing"),
        ("[task]\nkind = 'classify'\n", 9, "`task.kind`"),
        ("[techniques]\nalow = []\n", 9, "unknown key `techniques.alow`"),
        ("[techniques]\nallow = ['magic']\n", 9, "`techniques.allow"),
        ("[budget]\ntime = 30\n", 9, "`budget.time`: expected a number and one of ns"),
        ("[budget]\ntime = '0 s'\n", 9, "`budget.time`"),
        ("[budget]\nseed = -1\n", 9, "`budget.seed`"),
        ("[require]\nenergy_max = '2 watt'\n", 9, "`require.energy_max`: expected a number and one of nj"),
        ("[require]\nece_max = 2\n", 9, "`require.ece_max`"),
        ("[device.coral]\nschemes = []\n", 9, "`device.coral.schemes`"),
        (
            "[[slices]]\nname = 'a'\nwhere = 'x'\n[[slices]]\nname = 'b'\nwhere = 'x <'\n",
            13,
            "`slices.1.where`",
        ),
        ("[[slices]]\nname = 'a'\nwhere = 'x < \"5\"'\n", 10, "compared by == and != alone"),
        ("[[slices]]\nname = 'a'\nwhere = 'x < five'\n", 10, "expected a number or a text in quotes"),
        ("[[slices]]\nname = 'A B'\nwhere = 'x'\n", 9, "`slices.0.name`"),
        ("[[slices]]\nname = 'a'\n", 8, "`slices.0.where` is missing"),
        ("[[slices]]\nname = 'a'\nwhere = 'x'\nsize_max = 5\n", 11, "unknown key `slices.0.size_max`"),
    ],
)
def test_a_fault_is_named_with_its_line(folder: Path, more: str, line: int, words: str) -> None:
    with pytest.raises(BlueprintError) as caught:
        parsed(folder, more)
    assert f"blueprint.toml:{line}: " in caught.value.message
    assert words in caught.value.message


def test_the_nearest_key_of_a_table_is_named(folder: Path) -> None:
    for more, near in {
        "[techniques]\nalow = []\n": "`allow`",
        "[budget]\ntimes = '1 s'\n": "`time`",
        "[[slices]]\nname = 'a'\nwere = 'x'\n": "`where`",
        "[device.linux]\nscheme = ['int8']\n": "`schemes`",
        "[budgets]\n": "`budget`",
    }.items():
        with pytest.raises(BlueprintError) as caught:
            parsed(folder, more)
        assert caught.value.hint == f"did you mean {near}?"


def test_a_text_is_parsed_like_the_file(folder: Path) -> None:
    path = folder / "blueprint.toml"
    path.write_text(HEAD)
    assert parse_blueprint(HEAD, path) == load_blueprint(path)
    with pytest.raises(BlueprintError, match="not valid TOML"):
        parse_blueprint("[model", folder / "other.toml")
