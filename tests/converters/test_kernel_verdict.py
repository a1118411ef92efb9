"""The verdict on a model for a machine: each operation by the kernel that would compute it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.kernels import KIND, class_name, class_of, record_class, table_for, to_json
from edgeq.store import Store
from edgeq_converters.errors import ConverterError
from edgeq_converters.kernels import (
    KernelRow,
    KernelTable,
    KernelUse,
    Target,
    require_kernels,
    slow_parts,
    unsuited,
)
from edgeq_converters.values import PROBED_OPERATIONS, Kernel, Scheme

Edgeq = Callable[..., Any]
PROBED = tuple(scheme for scheme in Scheme if scheme is not Scheme.INT8_MIXED)


def machine(
    kernels: dict[tuple[str, Scheme], tuple[Kernel, float | None]], *, name: str = "aarch64", **changes: Any
) -> KernelTable:
    """Return a table in which every probed operation has XNNPACK's kernel, but for some."""
    rows = []
    for operation in PROBED_OPERATIONS:
        for scheme in PROBED:
            kernel, ratio = kernels.get((operation, scheme), ("xnnpack", None))
            problem = "refused" if kernel == "none" else ""
            row = KernelRow(operation=operation, scheme=scheme, kernel=kernel, ratio=ratio, problem=problem)
            rows.append(row)
    made = KernelTable(
        machine=name, runtime="r 1", source="board", measured_on="2026-01-01", emulated=True, rows=tuple(rows)
    )
    return replace(made, **changes)


def uses_of(scheme: Scheme, *, float_part: bool = False) -> tuple[KernelUse, ...]:
    """Return the operations of conv -> mean in a scheme, MEAN in float if there is a float part."""
    of_weights = scheme in {Scheme.DYNAMIC, Scheme.FLOAT16, Scheme.FLOAT32}
    conv = Scheme.INT8 if scheme is Scheme.INT8_MIXED else scheme
    mean = Scheme.FLOAT32 if of_weights or float_part else (Scheme.INT8 if conv is Scheme.INT4 else conv)
    return (
        KernelUse(operation="CONV_2D", scheme=conv, names=("a", "c"), work=0.9),
        KernelUse(operation="MEAN", scheme=mean, names=("pooled",), work=0.1),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An error as the caller gets it. Parts that are missing are empty texts."""

    problem: str
    expected: str
    got: str
    hint: str


def refusal(
    table: KernelTable, uses: tuple[KernelUse, ...], scheme: Scheme, *, may_be_float: bool = False
) -> Refusal:
    target = Target(name="pi", table=table)
    with pytest.raises(ConverterError) as caught:
        require_kernels(target, uses, scheme, may_be_float=may_be_float, subject="m.tflite")
    error = caught.value
    assert error.code == "EQ340"
    return Refusal(
        problem=error.problem or "", expected=error.expected or "", got=error.got or "", hint=error.hint or ""
    )


@pytest.mark.parametrize("scheme", list(Scheme))
def test_a_missing_kernel_is_named_with_its_operations_and_the_alternatives(scheme: Scheme) -> None:
    uses = uses_of(scheme)
    lacking = uses[0]
    table = machine({("CONV_2D", lacking.scheme): ("none", None)})
    error = refusal(table, uses, scheme)
    assert f"pi has no kernel for CONV_2D in {lacking.scheme} (2 operations): refused" in error.problem
    assert error.got == "none for 2"
    assert "each of the 3 operations (aarch64, r 1" in error.expected
    assert "replace CONV_2D in the model" in error.hint
    assert f"--scheme {scheme} " not in error.hint
    keeps = "--keep-float a --keep-float c" in error.hint
    assert keeps == scheme.needs_ranges
    assert ("--allow-float --keep-float" in error.hint) == scheme.needs_ranges
    mixed = refusal(table, uses, scheme, may_be_float=True)
    assert "--allow-float" not in mixed.hint
    # With a kernel for each operation of this model, what else the machine lacks does not matter.
    lacks_other = machine({("SOFTMAX", each): ("none", None) for each in PROBED})
    require_kernels(
        Target(name="pi", table=lacks_other), uses, scheme, may_be_float=False, subject="m.tflite"
    )


def test_the_float_part_is_judged_by_float_kernels_and_the_integer_part_by_integer_ones() -> None:
    no_int8_mean = machine({("MEAN", Scheme.INT8): ("none", None)})
    target = Target(name="pi", table=no_int8_mean)
    whole, kept = uses_of(Scheme.INT8_MIXED), uses_of(Scheme.INT8_MIXED, float_part=True)
    assert "MEAN in int8 (1 operation)" in refusal(no_int8_mean, whole, Scheme.INT8_MIXED).problem
    require_kernels(target, kept, Scheme.INT8_MIXED, may_be_float=True, subject="m.tflite")
    no_float_mean = machine({("MEAN", Scheme.FLOAT32): ("none", None)})
    error = refusal(no_float_mean, kept, Scheme.INT8_MIXED, may_be_float=True)
    assert "MEAN in float32 (1 operation)" in error.problem
    assert "--keep-float" not in error.hint, "it is float already"
    require_kernels(
        Target(name="pi", table=no_float_mean), whole, Scheme.INT8_MIXED, may_be_float=True, subject="m"
    )


def test_what_no_quantizer_wrote_for_the_probe_says_nothing_about_the_runtime() -> None:
    table = machine({})
    rows = tuple(
        replace(row, kernel="none", tried=False) if row.operation == "MEAN" else row for row in table.rows
    )
    for scheme in Scheme:
        require_kernels(
            Target(name="pi", table=replace(table, rows=rows)),
            uses_of(scheme),
            scheme,
            may_be_float=False,
            subject="m",
        )


def test_the_proposed_schemes_have_a_kernel_for_every_operation_and_are_not_slow() -> None:
    table = machine(
        {
            ("CONV_2D", Scheme.INT8): ("none", None),
            ("CONV_2D", Scheme.DYNAMIC): ("none", None),
            ("MEAN", Scheme.FLOAT32): ("none", None),
            **{(each, Scheme.INT16X8): ("builtin", None) for each in PROBED_OPERATIONS},
        }
    )
    hint = refusal(table, uses_of(Scheme.INT8), Scheme.INT8).hint
    # float16 and float32 lack MEAN, which they compute in float32; int16x8 is described as slow.
    assert "--scheme" not in hint
    assert "--keep-float a" in hint, "CONV_2D has a float kernel"


@pytest.mark.parametrize(
    ("ratios", "scheme", "float_part", "slow"),
    [
        ({("CONV_2D", Scheme.INT8): 0.4, ("MEAN", Scheme.INT8): 1.0}, Scheme.INT8, False, False),
        ({("CONV_2D", Scheme.INT8): 0.4, ("MEAN", Scheme.INT8): 30.0}, Scheme.INT8, False, True),
        # The same model with MEAN in float, which costs what float costs.
        (
            {
                ("CONV_2D", Scheme.INT8): 0.4,
                ("MEAN", Scheme.INT8): 30.0,
                ("MEAN", Scheme.FLOAT32): 1.0,
            },
            Scheme.INT8_MIXED,
            True,
            False,
        ),
        ({("CONV_2D", Scheme.INT8): 3.0, ("MEAN", Scheme.FLOAT32): 1.0}, Scheme.INT8_MIXED, True, True),
        ({("CONV_2D", Scheme.DYNAMIC): 4.0, ("MEAN", Scheme.FLOAT32): 1.0}, Scheme.DYNAMIC, False, True),
        ({("CONV_2D", Scheme.FLOAT16): 1.0}, Scheme.FLOAT16, False, False),
        ({("CONV_2D", Scheme.INT4): 2.5, ("MEAN", Scheme.INT8): 1.0}, Scheme.INT4, False, True),
        ({("CONV_2D", Scheme.INT16X8): 40.0}, Scheme.INT16X8, False, True),
        ({("CONV_2D", Scheme.FLOAT32): 1.0}, Scheme.FLOAT32, False, False),
    ],
)
def test_ratios_are_weighted_by_the_work_of_this_model(
    ratios: dict[tuple[str, Scheme], float], scheme: Scheme, float_part: bool, slow: bool
) -> None:
    table = machine({key: ("reference", ratio) for key, ratio in ratios.items()}, emulated=False)
    lines = slow_parts(table, uses_of(scheme, float_part=float_part), scheme=scheme)
    assert bool(lines) == slow, lines
    for line in lines:
        assert line.startswith(f"{scheme} is slower than float32 there, about ")
        assert "times for this model: " in line


@pytest.mark.parametrize("scheme", list(Scheme))
@pytest.mark.parametrize("name", ["aarch64", "armv7l"])
def test_without_ratios_the_runtimes_documents_decide_and_are_named(scheme: Scheme, name: str) -> None:
    builtin: dict[tuple[str, Scheme], tuple[Kernel, float | None]] = {
        (each, scheme): ("builtin", None) for each in PROBED_OPERATIONS for scheme in PROBED
    }
    table = machine(builtin, name=name)
    reasons = [unsuited(table, scheme), *slow_parts(table, uses_of(scheme), scheme=scheme)]
    if scheme is Scheme.INT16X8 or (scheme is Scheme.FLOAT16 and name == "armv7l"):
        assert len(reasons) == 2
        for reason in reasons:
            assert reason is not None
            assert "described, not measured: LiteRT, post-training" in reason
            assert "CONV_2D" in reason
            assert "builtin" in reason
            assert "\n" not in reason
    else:
        assert reasons == [None]
    # A measurement comes before a description.
    fast: dict[tuple[str, Scheme], tuple[Kernel, float | None]] = {key: ("builtin", 0.9) for key in builtin}
    measured = machine(fast, name=name, emulated=False)
    assert unsuited(measured, scheme) is None
    assert slow_parts(measured, uses_of(scheme), scheme=scheme) == ()


def test_a_few_int16_operations_of_an_int8_model_do_not_count() -> None:
    table = machine({("MEAN", Scheme.INT16X8): ("reference", None)})
    uses = (
        KernelUse(operation="CONV_2D", scheme=Scheme.INT8, names=("a",), work=0.97),
        KernelUse(operation="MEAN", scheme=Scheme.INT16X8, names=("b",), work=0.03),
    )
    assert slow_parts(table, uses, scheme=Scheme.INT8) == ()
    heavy = (replace(uses[0], work=0.5), replace(uses[1], work=0.5))
    (line,) = slow_parts(table, heavy, scheme=Scheme.INT8)
    assert "MEAN in int16x8 (1 operation), reference" in line


def test_a_device_without_a_probe_is_judged_by_the_table_of_its_class(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        assert table_for("pi", store) is None
        record_class("pi", "aarch64", store)
        store.record_run(KIND, "board", to_json(machine({}, emulated=False)))
        own = table_for("pi", store)
        assert own is not None
        assert own.source == "board"
        assert table_for("arm64", store) == own
        record_class("pi", "armv7l", store)
        assert class_of("pi", store) == "armv7l"
        before = len(store.runs("machine-class"))
        record_class("pi", "armv7l", store)
        assert len(store.runs("machine-class")) == before, "the same again is not recorded"


@pytest.mark.parametrize(
    ("machine", "bits", "name"),
    [
        ("aarch64", 64, "aarch64"),
        ("aarch64", 32, "armv7l"),
        ("armv8l", 32, "armv7l"),
        ("arm64", 64, "aarch64"),
        ("AMD64", 64, "x86_64"),
        ("riscv64", 64, "riscv64"),
    ],
)
def test_the_class_of_a_machine_is_that_of_its_programs(machine: str, bits: int, name: str) -> None:
    assert class_name(machine, bits) == name


@pytest.mark.convert
@pytest.mark.first_is_quick
@pytest.mark.parametrize("scheme", [Scheme.INT8, *(each for each in Scheme if each is not Scheme.INT8)])
def test_the_operations_of_a_model_are_counted_in_the_scheme_that_each_computes_in(scheme: Scheme) -> None:
    pytest.importorskip("litert_quantizer")
    from edgeq_converters.graph.kernel_uses import kernel_uses
    from edgeq_converters.graph.normalize import normalize
    from edgeq_converters.quantization.quantize import quantize, tried
    from edgeq_converters.recipe import Backend, Recipe

    from .nets import net

    kept = ("pooled",) if scheme is Scheme.INT8_MIXED else ()
    recipe = Recipe(scheme=scheme, backend=Backend.LITERT, float_ops=kept)
    model = normalize(net())
    made: Any = model
    if scheme.needs_ranges:
        made = tried(model, recipe=recipe)
    elif scheme is not Scheme.FLOAT32:
        made = quantize(model, recipe=recipe, ranges=None).model
    uses = {(use.operation, use.scheme): use for use in kernel_uses(made)}
    rest = {
        Scheme.INT8_MIXED: Scheme.INT8,
        Scheme.INT4: Scheme.INT8,
        Scheme.DYNAMIC: Scheme.FLOAT32,
        Scheme.FLOAT16: Scheme.FLOAT32,
    }.get(scheme, scheme)
    weights = Scheme.INT8 if scheme is Scheme.INT8_MIXED else scheme
    assert len(uses["CONV_2D", weights].names) == 2
    assert uses["CONV_2D", weights].work > uses["FULLY_CONNECTED", weights].work
    assert uses["ADD", rest].names == ("d",)
    assert uses["MEAN", Scheme.FLOAT32 if kept else rest].names == ("pooled",)
    assert sum(use.work for use in uses.values()) == pytest.approx(1.0)
    assert not {"QUANTIZE", "DEQUANTIZE"} & {operation for operation, _ in uses}
    assert sum(len(use.names) for use in uses.values()) == 7


@pytest.mark.convert
@pytest.mark.slow
def test_a_conversion_for_a_machine_ends_before_the_calibration_where_a_kernel_is_missing(
    tmp_path: Path, edgeq: Edgeq, workspace: Path
) -> None:
    pytest.importorskip("litert_quantizer")
    from .nets import net

    source, data, output = tmp_path / "m.tflite", tmp_path / "c.npz", tmp_path / "o.tflite"
    source.write_bytes(net().data)
    np.savez(data, x=np.random.default_rng(0).normal(size=(40, 8, 8, 2)).astype(np.float32))
    table = machine({("MEAN", Scheme.INT8): ("none", None)})
    with Store.open(workspace) as store:
        store.record_run(KIND, "pi", json.loads(json.dumps(to_json(table))))
    command = ["convert", source, "-o", output, "--calibration", data, "--effort", "quick", "--for", "pi"]
    missing = edgeq(*command, "--scheme", "int8")
    assert missing.status != 0
    assert "EQ340" in missing.err
    assert "pi has no kernel for MEAN in int8 (1 operation): refused" in missing.err
    assert "--allow-float --keep-float pooled" in missing.err
    assert "calibrat" not in missing.err.split("EQ340")[0], "it ends before the calibration"
    assert not output.exists()
    kept = edgeq(*command, "--scheme", "int8", "--allow-float", "--keep-float", "pooled")
    assert kept.status == 0, kept.err
    mixed = edgeq(*command, "--scheme", "int8-mixed")
    assert "EQ340" in mixed.err
    assert "--keep-float pooled" in mixed.err
    assert edgeq(*command, "--scheme", "float16").status == 0
