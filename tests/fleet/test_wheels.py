"""The choice of wheels for a device: by the device's platform, not by this machine's."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edgeq.errors import DeviceUnsupported, DiskRefused, TransportError
from edgeq.fleet.facts import Facts, LibC
from edgeq.fleet.runtimes import wheels
from edgeq.fleet.runtimes.platform_tags import choices_for, target_of

PI = Facts.from_probe(
    "pi",
    {
        "python": "3.11.2",
        "implementation": "cpython",
        "machine": "aarch64",
        "system": "Linux",
        "libc": {"name": "glibc", "version": "2.36"},
        "pointer_bits": 64,
        "free_bytes": 10**10,
        "device_id": "0123",
    },
)


def test_tags_go_from_the_devices_glibc_down() -> None:
    target = target_of("pi", PI)
    assert target.platforms[0] == "manylinux_2_36_aarch64"
    assert target.platforms[-2:] == ("manylinux_2_17_aarch64", "manylinux2014_aarch64")
    assert (target.python, target.abi) == ("3.11", "cp311")


def test_a_32_bit_userland_on_a_64_bit_kernel_gets_32_bit_wheels() -> None:
    target = target_of("pi", PI.model_copy(update={"pointer_bits": 32, "machine": "aarch64"}))
    assert target.platforms[0] == "manylinux_2_36_armv7l"
    assert target.platforms[-1] == "linux_armv7l"


def test_python_3_7_has_its_own_abi() -> None:
    coral = PI.model_copy(update={"python": "3.7.3", "c_library": LibC(name="glibc", version="2.28")})
    assert target_of("coral", coral).abi == "cp37m"
    assert [choice.requirements for choice in choices_for(coral)] == [("tflite-runtime", "numpy<2")]


def test_newer_wheels_need_a_newer_glibc_than_their_tag_says() -> None:
    assert [choice.requirements[0] for choice in choices_for(PI)] == [
        "ai-edge-litert>=2.1.1",
        "ai-edge-litert<2.1.1",
        "tflite-runtime",
    ]
    bullseye = PI.model_copy(update={"c_library": LibC(name="glibc", version="2.31")})
    names = [choice.requirements[0] for choice in choices_for(bullseye)]
    assert names == ["ai-edge-litert<2.1.1", "tflite-runtime"]


def test_32_bit_arm_takes_the_devices_own_numpy_where_it_is_one_that_fits() -> None:
    def texts(**packages: str) -> list[str]:
        facts = PI.model_copy(update={"machine": "armv8l", "pointer_bits": 32, "packages": packages})
        return [choice.text for choice in choices_for(facts)]

    alone = ["tflite-runtime numpy<2"]
    assert texts() == alone
    assert texts(numpy="1.24.2") == [*alone, "tflite-runtime with the device's numpy 1.24.2"]
    assert texts(numpy="2.2.4") == alone, "tflite-runtime dies of numpy 2"


def test_on_64_bit_the_devices_own_numpy_plays_no_part() -> None:
    assert not any(
        choice.own for choice in choices_for(PI.model_copy(update={"packages": {"numpy": "1.24.2"}}))
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"c_library": LibC(name="musl", version="1.2")}, "musl 1.2"),
        ({"c_library": None}, "unknown"),
        ({"machine": "riscv64"}, "riscv64"),
        ({"machine": "x86_64", "pointer_bits": 32}, "32 bit"),
        ({"implementation": "PyPy"}, "CPython"),
    ],
)
def test_devices_that_no_wheel_is_made_for(change: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(DeviceUnsupported, match=message):
        wheels.resolve(PI.model_copy(update=change), tmp_path, name="pi")


@pytest.mark.slow
def test_a_python_without_wheels_says_what_was_tried(tmp_path: Path) -> None:
    with pytest.raises(DeviceUnsupported, match="cp35m on manylinux_2_36_aarch64") as caught:
        wheels.resolve(PI.model_copy(update={"python": "3.5.3"}), tmp_path, name="pi")
    assert "ai-edge-litert>=2.1.1 numpy; " in caught.value.message
    assert "edgeq then uses that one" in str(caught.value.hint)


@pytest.fixture
def arm_wheels(wheels_folder: Path) -> wheels.RuntimeSpec:
    try:
        return wheels.resolve(PI, wheels_folder, name="pi")
    except DeviceUnsupported as error:
        pytest.skip(f"this machine's package index has no aarch64 wheels: {error.message}")


@pytest.mark.slow
def test_the_devices_platform_is_fetched_and_the_cache_needs_no_index(
    arm_wheels: wheels.RuntimeSpec, wheels_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = " ".join(wheel.name for wheel in arm_wheels.files)
    assert "aarch64" in names
    assert "x86_64" not in names
    assert "numpy-" in names
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    again = wheels.resolve(PI, wheels_folder, name="pi")
    assert again == arm_wheels


@pytest.mark.slow
def test_devices_that_are_planned_at_once_share_one_fetch(
    arm_wheels: wheels.RuntimeSpec, tmp_path: Path
) -> None:
    with ThreadPoolExecutor(4) as pool:
        runtimes = list(pool.map(lambda _: wheels.resolve(PI, tmp_path / "new", name="pi"), range(4)))
    assert {runtime.digest for runtime in runtimes} == {arm_wheels.digest}
    times = {path.stat().st_mtime_ns for path in (tmp_path / "new").glob("*.json")}
    assert len(times) == 1
    assert not list((tmp_path / "new").glob(".fetch-*"))


@pytest.mark.slow
def test_a_damaged_cache_is_not_believed(
    arm_wheels: wheels.RuntimeSpec, wheels_folder: Path, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(wheels_folder, tmp_path / "copy")
    smallest = min(arm_wheels.files, key=lambda wheel: wheel.size_bytes)
    (tmp_path / "copy" / smallest.name).write_bytes(b"damaged")
    again = wheels.resolve(PI, tmp_path / "copy", name="pi")
    assert again.digest == arm_wheels.digest
    assert (tmp_path / "copy" / smallest.name).read_bytes() != b"damaged"
    for path in (tmp_path / "copy").glob("*.json"):
        path.write_text("{}")
    assert wheels.resolve(PI, tmp_path / "copy", name="pi").digest == arm_wheels.digest


def test_an_unreachable_index_does_not_count_against_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_RETRIES": "1",
        "PIP_TIMEOUT": "1",
        "PIP_NO_CACHE_DIR": "1",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(TransportError, match="cannot be downloaded") as caught:
        wheels.resolve(PI, tmp_path, name="pi")
    assert "package index" in str(caught.value.hint)


def test_a_full_disk_is_named_and_not_taken_for_a_missing_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What pip prints when its disk is full; filling one takes root.
    text = (
        "ERROR: Exception:\nTraceback (most recent call last):\nOSError: [Errno 28] No space left on device\n"
    )
    monkeypatch.setattr(
        "subprocess.run", lambda argv, **_how: subprocess.CompletedProcess(argv, 2, stdout="", stderr=text)
    )
    with pytest.raises(DiskRefused, match="no space left") as caught:
        wheels.resolve(PI, tmp_path, name="pi")
    assert caught.value.subject == str(tmp_path)
    assert "free space" in str(caught.value.hint)


@pytest.mark.slow
def test_the_digest_is_of_content_and_python(arm_wheels: wheels.RuntimeSpec, wheels_folder: Path) -> None:
    assert len(arm_wheels.digest) == 64
    own = wheels.installed_runtime(PI, "none fit")
    assert own.files == ()
    assert own.digest != arm_wheels.digest
    for path in wheels_folder.glob("*.json"):
        for wheel in json.loads(path.read_text())["wheels"]:
            assert (wheels_folder / wheel["name"]).stat().st_size == wheel["size_bytes"]
