"""Valid and invalid blueprints."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeq.blueprint import Limits, Preference, Scheme, load_blueprint
from edgeq.errors import BlueprintError
from edgeq.values import DeviceKind

GOOD = """\
schema_version = 1
name = "digits"
prefer = ["accuracy", "size"]

[model]
source = "digits.keras"
labels = ["0", "1"]

[data]
calibration = "calibration.npz"
evaluation = "evaluation.npz"

[variants]
schemes = ["float16", "int8"]

[require]
accuracy_drop_max = 0.01
size_max = "64 KiB"
latency_p95_max = "5 ms"

[device.raspberry-pi]
latency_p95_max = "20 ms"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("digits.keras", "calibration.npz", "evaluation.npz"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def write(folder: Path, text: str) -> Path:
    path = folder / "blueprint.toml"
    path.write_text(text)
    return path


def test_a_valid_blueprint(folder: Path) -> None:
    blueprint = load_blueprint(write(folder, GOOD))
    assert blueprint.name == "digits"
    assert blueprint.source == folder / "digits.keras"
    assert blueprint.schemes == (Scheme.FLOAT16, Scheme.INT8)
    assert blueprint.prefer == (Preference.ACCURACY, Preference.SIZE)
    assert blueprint.labels == ("0", "1")
    assert blueprint.limits == Limits(
        accuracy_drop_max=0.01, size_bytes_max=65536, latency_p95_ns_max=5_000_000
    )


def test_a_device_kind_has_its_own_limits(folder: Path) -> None:
    blueprint = load_blueprint(write(folder, GOOD))
    own = blueprint.limits_for(DeviceKind.RASPBERRY_PI)
    assert own.latency_p95_ns_max == 20_000_000
    assert own.size_bytes_max == 65536
    assert blueprint.limits_for(DeviceKind.CORAL) == blueprint.limits


def test_the_digest_is_of_the_content_not_of_the_layout(folder: Path) -> None:
    first = load_blueprint(write(folder, GOOD)).digest
    assert load_blueprint(write(folder, GOOD.replace("\n\n", "\n# a comment\n"))).digest == first
    assert load_blueprint(write(folder, GOOD.replace("0.01", "0.02"))).digest != first


@pytest.mark.parametrize(
    ("change", "words", "hint"),
    [
        (('"64 KiB"', '"64 parsecs"'), ["blueprint.toml:18", "require.size_max", "64 parsecs"], "docs"),
        (("size_max =", "sise_max ="), ["blueprint.toml:18", "unknown key `require.sise_max`"], "`size_max`"),
        (("[variants]", "[variantz]"), ["blueprint.toml:13", "unknown key `variantz`"], "`variants`"),
        (("0.01", "1.5"), ["require.accuracy_drop_max", "1.5"], "docs"),
        (('"int8"', '"int9"'), ["variants.schemes", "int9"], "docs"),
        (("schema_version = 1\n", ""), ["`schema_version` is missing"], "docs"),
        (("schema_version = 1", "schema_version = 2"), ["schema_version", "2"], "docs"),
        (('name = "digits"', 'name = "../digits"'), ["`name`", "../digits"], "docs"),
        (("[device.raspberry-pi]", "[device.toaster]"), ["device.toaster"], "docs"),
        (("digits.keras", "nothing.keras"), ["blueprint.toml:6", "nothing.keras"], "correct the path"),
        (('calibration = "calibration.npz"\n', ""), ["data.calibration", "int8"], "add calibration"),
        (("[model]", "[model"), ["not valid TOML"], "docs"),
    ],
)
def test_a_fault_is_named_with_its_line_and_a_hint(
    folder: Path, change: tuple[str, str], words: list[str], hint: str
) -> None:
    assert change[0] in GOOD
    with pytest.raises(BlueprintError) as caught:
        load_blueprint(write(folder, GOOD.replace(*change)))
    for word in words:
        assert word in caught.value.message
    assert caught.value.hint is not None
    assert hint in caught.value.hint


def test_a_missing_file_and_a_binary_file(tmp_path: Path) -> None:
    with pytest.raises(BlueprintError, match="No such file"):
        load_blueprint(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BlueprintError, match="not UTF-8"):
        load_blueprint(tmp_path / "binary.toml")


@pytest.mark.parametrize("name", ["d" * 300 + ".keras", "d\\\\u0000.keras", "no/such/file.keras"])
def test_a_source_that_no_file_can_be_is_a_fault_of_the_blueprint(folder: Path, name: str) -> None:
    path = folder / "blueprint.toml"
    path.write_text(GOOD.replace("digits.keras", name.replace("\\\\", "\\")), "utf-8")
    with pytest.raises(BlueprintError) as caught:
        load_blueprint(path)
    assert "a file that exists" in str(caught.value)
