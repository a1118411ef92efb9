"""Kernel tables: measured on this machine, kept as data, and asked whether a scheme suits a machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.errors import StoreError
from edgeq.kernels import (
    KIND,
    KernelRow,
    KernelTable,
    from_json,
    shipped_tables,
    table_for,
    to_json,
    unsuited,
)
from edgeq.store import UNRECORDED, Store
from edgeq.testing.loopback import loopback_device
from edgeq_converters.values import PROBED_OPERATIONS, WEIGHTED_OPERATIONS, Scheme
from tests.fleet.servers import enrol_at

Edgeq = Callable[..., Any]


def table(ratios: dict[Scheme, float | None], **changes: Any) -> KernelTable:
    rows = tuple(
        KernelRow(
            operation=operation, scheme=scheme, kernel="xnnpack" if ratio else "none", ratio=ratio,
        )
        for scheme, ratio in ratios.items()
        for operation in WEIGHTED_OPERATIONS
    )  # fmt: skip
    made = KernelTable(
        machine="armv7l", runtime="r 1", source="board", measured_on="2026-01-01", emulated=False, rows=rows
    )
    return replace(made, **changes)


def test_a_slow_or_missing_scheme_is_not_proposed_and_the_reason_names_the_measurement() -> None:
    given = table({Scheme.INT16X8: 40.0, Scheme.INT8: 0.4, Scheme.FLOAT16: 1.9, Scheme.INT4: None})
    slow = unsuited(given, Scheme.INT16X8)
    assert slow is not None
    assert "CONV_2D 40.0 times (xnnpack)" in slow
    assert "armv7l, r 1, measured 2026-01-01" in slow
    assert "no kernel there runs int4" in (unsuited(given, Scheme.INT4) or "")
    for scheme in (Scheme.INT8, Scheme.FLOAT16, Scheme.FLOAT32, Scheme.DYNAMIC):  # dynamic was not probed
        assert unsuited(given, scheme) is None


def test_ratios_under_emulation_decide_nothing_but_missing_kernels_do() -> None:
    given = table({Scheme.INT16X8: 40.0, Scheme.INT4: None}, emulated=True)
    assert unsuited(given, Scheme.INT16X8) is None
    assert "under emulation" in (unsuited(given, Scheme.INT4) or "")


@pytest.mark.parametrize(
    ("machine", "emulated", "slow"),
    [
        ("x86_64", False, [Scheme.INT16X8]),
        ("aarch64", True, [Scheme.INT16X8]),
        ("armv7l", True, [Scheme.FLOAT16, Scheme.INT16X8]),
    ],
)
def test_the_tables_of_edgeq_have_every_operation_and_scheme(
    machine: str, emulated: bool, slow: list[Scheme]
) -> None:
    (shipped,) = (each for each in shipped_tables() if each.machine == machine)
    assert shipped.emulated is emulated
    assert {row.ratio is None for row in shipped.rows if row.kernel != "none"} == {emulated}
    assert {row.operation for row in shipped.rows} == set(PROBED_OPERATIONS)
    for operation in WEIGHTED_OPERATIONS:
        schemes = {row.scheme for row in shipped.rows if row.operation == operation}
        assert schemes == set(Scheme) - {Scheme.INT8_MIXED}
    assert [scheme for scheme in Scheme if unsuited(shipped, scheme)] == slow


def test_the_own_probe_comes_before_the_table_of_edgeq_and_a_real_machine_before_an_emulated_one(
    tmp_path: Path,
) -> None:
    with Store.open(tmp_path) as store:
        assert table_for("x86_64", store) in shipped_tables()
        assert table_for("armv7l", store) in shipped_tables()
        assert table_for("riscv64", store) is None
        emulated = table({Scheme.INT8: 1.0}, emulated=True)
        real, last = table({Scheme.INT8: 2.0}), table({Scheme.INT8: 3.0}, emulated=True)
        for name, each in (("qemu", emulated), ("pi", real), ("qemu", last)):
            store.record_run(KIND, name, json.loads(json.dumps(to_json(each))))
        assert table_for("qemu", store) == last
        assert table_for("armv7l", store) == real
        store.record_run(KIND, "pi", {**to_json(real), "rows": [{"operation": 3}]})
        with pytest.raises(StoreError, match="the kernel table is damaged: rows"):
            table_for("pi", store)


def test_a_record_counts_until_its_machine_is_measured_again(tmp_path: Path) -> None:
    good = table({Scheme.INT8: 2.0})
    with Store.open(tmp_path) as store:
        store.record_run(KIND, "pi", {**to_json(good), "rows": [{"operation": 3}]})
        with pytest.raises(StoreError, match="damaged"):
            table_for("armv7l", store)
        store.record_run(KIND, "pi", to_json(good))
        assert table_for("armv7l", store) == good


def test_a_record_that_does_not_say_whether_the_runtime_was_asked_refuses_nothing(tmp_path: Path) -> None:
    rows = [
        {"operation": "ADD", "scheme": "int8", "kernel": "none", "problem": "?"},
        {"operation": "MUL", "scheme": "int8", "kernel": "xnnpack"},
    ]
    with Store.open(tmp_path) as store:
        store.record_run(KIND, "pi", {**to_json(table({})), "rows": rows})
        known = table_for("pi", store)
    assert known is not None
    assert [(row.tried, row.is_missing) for row in known.rows] == [(False, False), (True, False)]


@pytest.mark.parametrize("name", ["AArch64", "ARM64", "X86_64", "armhf"])
def test_a_class_of_machines_is_known_in_any_case(name: str) -> None:
    assert table_for(name, None) in shipped_tables()


@pytest.mark.convert
def test_probe_models_are_of_the_operations_that_are_probed() -> None:
    pytest.importorskip("ai_edge_litert")
    from edgeq_converters.graph.probe_models import OPERATIONS

    assert tuple(OPERATIONS) == PROBED_OPERATIONS


@pytest.mark.convert
@pytest.mark.slow
def test_this_machine_is_measured() -> None:
    pytest.importorskip("litert_quantizer")
    from edgeq.benchmark.kernel_probe import probe_this_machine

    measured = probe_this_machine(operations=("FULLY_CONNECTED", "HARD_SWISH"), rounds=3, store=UNRECORDED)
    dense, wide = (measured.row("FULLY_CONNECTED", each) for each in (Scheme.INT8, Scheme.INT16X8))
    assert dense is not None
    assert wide is not None
    assert dense.kernel == "xnnpack"
    assert wide.kernel in {"optimized", "reference"}
    assert dense.ratio is not None
    assert wide.ratio is not None
    assert wide.ratio > dense.ratio
    swish = measured.row("HARD_SWISH", Scheme.INT16X8)
    assert swish is not None
    assert (swish.kernel, swish.ratio) == ("none", None)
    assert swish.problem
    assert measured.row("HARD_SWISH", Scheme.FLOAT16) is None  # it has no weights
    assert from_json(to_json(measured), subject="here") == measured


def test_the_command_shows_a_table(edgeq: Edgeq) -> None:
    done = edgeq("devices", "kernels", "--show", "x86_64", "--json")
    assert json.loads(done.out)["machine"] == "x86_64"
    text = edgeq("devices", "kernels", "--show", "x86_64")
    assert "int16x8 is slower than float32 there" in text.err
    unknown = edgeq("devices", "kernels", "--show", "pdp11")
    assert unknown.status == 2
    assert "'pdp11'" in unknown.err


@pytest.mark.convert
def test_models_beside_each_other_compute_what_each_computes_alone() -> None:
    pytest.importorskip("litert_quantizer")
    from edgeq_converters.graph.interpreter import Interpreter
    from edgeq_converters.graph.merge import merged
    from edgeq_converters.graph.probe_models import model_of
    from edgeq_converters.quantization.probe_variants import variant

    wide, _ = variant("FULLY_CONNECTED", Scheme.INT8)
    assert wide is not None
    parts = {"add": model_of("ADD"), "dense": wide, "mean": model_of("MEAN")}
    whole = Interpreter(merged(parts, subject="parts"))
    names = [each.name for each in merged(parts, subject="parts").inputs]
    assert names == ["add_x", "add_z", "dense_x", "mean_x"]
    random = np.random.default_rng(0)
    rows: list[Any] = []
    for detail in whole.inputs:
        rows.append(random.integers(-100, 100, detail["shape"]).astype(detail["dtype"]))
    whole.run(rows)
    together = [np.array(each) for each in whole.results()]
    alone = []
    for part in parts.values():
        interpreter = Interpreter(part)
        count = len(interpreter.inputs)
        interpreter.run(rows[:count])
        rows = rows[count:]
        alone += [np.array(each) for each in interpreter.results()]
    assert len(together) == len(alone) == 3
    for each, expected in zip(together, alone, strict=True):
        np.testing.assert_array_equal(each, expected)


@pytest.mark.convert
@pytest.mark.slow
@pytest.mark.sshd
def test_the_kernels_of_several_models_are_known_from_one_deployment(tmp_path: Path) -> None:
    pytest.importorskip("litert_quantizer")
    from edgeq.benchmark.kernel_groups import probe_groups
    from edgeq_converters.graph.probe_models import model_of
    from edgeq_converters.quantization.probe_variants import variant
    from edgeq_converters.worker.protocol import ProbeModel

    models = []
    for scheme in (Scheme.FLOAT32, Scheme.INT8, Scheme.INT16X8):
        made, _ = variant("LOGISTIC", scheme)
        assert made is not None
        path = tmp_path / f"logistic-{scheme}.tflite"
        path.write_bytes(made.data)
        inputs = model_of("LOGISTIC").inputs
        models.append((ProbeModel(operation="LOGISTIC", scheme=scheme, path=path, inputs=inputs), path))
    steps: list[int] = []
    with loopback_device(tmp_path / "device") as server:
        device = enrol_at(server, tmp_path).device
        known = probe_groups(device, models, workspace=tmp_path, done=steps.append)
    assert [known[path].kernel for _, path in models] == ["xnnpack", "xnnpack", "builtin"]
    assert steps == [3], "one deployment"


@pytest.mark.convert
@pytest.mark.slow
@pytest.mark.sshd
def test_a_device_is_measured_through_ordinary_deployments(tmp_path: Path) -> None:
    pytest.importorskip("litert_quantizer")
    from edgeq.benchmark.kernel_probe import probe_device

    with loopback_device(tmp_path / "device") as server, Store.open(tmp_path) as store:
        device = enrol_at(server, tmp_path).device
        measured = probe_device(device, workspace=tmp_path, store=store, operations=("LOGISTIC",))
        assert [row.scheme for row in measured.rows] == [Scheme.FLOAT32, Scheme.INT8, Scheme.INT16X8]
        wide = measured.row("LOGISTIC", Scheme.INT16X8)
        assert wide is not None
        assert wide.kernel == "builtin"
        assert wide.ratio is not None
        assert wide.ratio_low is not None
        assert wide.ratio_high is not None
        assert wide.ratio_low <= wide.ratio <= wide.ratio_high
        assert measured.runtime.startswith("ai_edge_litert")
        assert table_for(device.name, store) == measured


@pytest.mark.convert
@pytest.mark.slow
def test_a_conversion_for_a_machine_warns_of_a_slow_scheme(tmp_path: Path, edgeq: Edgeq) -> None:
    pytest.importorskip("litert_quantizer")
    from edgeq_converters.graph.probe_models import model_of

    source, data = tmp_path / "m.tflite", tmp_path / "c.npz"
    source.write_bytes(model_of("FULLY_CONNECTED").data)
    np.savez(data, x=np.random.default_rng(0).normal(size=(40, 1024)).astype(np.float32))
    command = ["convert", source, "-o", tmp_path / "o.tflite", "--calibration", data, "--effort", "quick"]
    command += ["--calibrator", "minmax", "--bias-correction", "off", "--equalization", "off", "--scheme"]
    slow = edgeq(*command, "int16x8", "--for", "x86_64")
    assert slow.status == 0, slow.err
    assert (
        "warning: int16x8 is slower than float32 there, about 5.1 times for this model: FULLY_CONNECTED"
        in slow.err
    )
    assert "slower than float32" not in edgeq(*command, "int8", "--for", "x86_64").err
    unknown = edgeq(*command, "int8", "--for", "pdp11")
    assert "nothing is known of the kernels of 'pdp11'; there are tables of aarch64" in unknown.err
