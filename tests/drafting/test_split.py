"""Splits: the shares of the labels, equal samples on one side, sequences whole."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.drafting.dataset import read_dataset
from edgeq.drafting.split import NewFile, calibration_part, chosen_rows, split
from tests.drafting.conftest import Writer, samples


def stored(new: NewFile) -> dict[str, Any]:
    with np.load(io.BytesIO(new.content), allow_pickle=False) as loaded:
        return {name: loaded[name] for name in loaded.files}


@given(
    groups=st.lists(st.integers(0, 30), min_size=1, max_size=80),
    classes=st.integers(1, 5),
    share=st.floats(0, 1),
    seed=st.integers(0, 9),
)
def test_a_part_is_never_larger_than_asked_for_and_splits_no_group(
    groups: list[int], classes: int, share: float, seed: int
) -> None:
    names = [str(group).encode() for group in groups]
    labels = np.array(groups) % classes
    target = int(share * len(groups))
    rows = chosen_rows(names, labels, target=target, seed=seed)
    assert len(rows) <= target
    chosen = {groups[row] for row in rows}
    assert [row for row in range(len(groups)) if groups[row] in chosen] == rows.tolist()


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6), share=st.floats(0, 1))
def test_a_part_has_the_shares_of_the_labels(sizes: list[int], share: float) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    names = [str(row).encode() for row in range(len(labels))]
    target = int(share * len(labels))
    rows = chosen_rows(names, labels, target=target, seed=0)
    assert len(rows) == target
    for label, size in enumerate(sizes):
        expected = target * size / len(labels)
        assert abs((labels[rows] == label).sum() - expected) < 1 + 1e-9


def test_both_parts_together_are_the_whole(write: Writer) -> None:
    whole = {**samples(700), "night": np.arange(700) % 3 == 0, "labels": np.array(["a", "b", "c"])}
    data = read_dataset(write("all.npz", **whole), None)
    first, second = split(data, folder=Path("out"), seed=3)
    assert (first.path, first.samples) == (Path("out/calibration.npz"), 300)
    assert (second.path, second.samples) == (Path("out/evaluation.npz"), 400)
    parts = [stored(new) for new in (first, second)]
    for name in ("x", "y", "night"):
        joined = np.concatenate([part[name] for part in parts])
        assert sorted(map(bytes, joined)) == sorted(map(bytes, whole[name]))
    assert all(part["labels"].tolist() == ["a", "b", "c"] for part in parts)
    order = {row.tobytes(): number for number, row in enumerate(whole["x"])}
    for part in parts:
        at = [order[row.tobytes()] for row in part["x"]]
        assert (whole["y"][at] == part["y"]).all()
    assert split(data, folder=Path("out"), seed=3)[0].content == first.content
    assert split(data, folder=Path("out"), seed=4)[0].content != first.content


def test_equal_samples_stay_on_one_side(write: Writer) -> None:
    once = samples(50)
    data = read_dataset(write("all.npz", x=np.repeat(once["x"], 4, axis=0), y=np.repeat(once["y"], 4)), None)
    first, second = (stored(new)["x"] for new in split(data, folder=Path(), seed=0))
    assert not {row.tobytes() for row in first} & {row.tobytes() for row in second}
    assert len(first) + len(second) == 200


def test_sequences_stay_whole(write: Writer) -> None:
    ids = np.repeat(np.arange(10), 20)
    data = read_dataset(write("all.npz", **samples(200), sequence_id=ids), None)
    first, second = (set(stored(new)["sequence_id"].tolist()) for new in split(data, folder=Path(), seed=0))
    assert len(first) == len(second) == 5
    assert not first & second


def test_a_part_of_training_data(write: Writer) -> None:
    data = read_dataset(write("train.npz", **samples(2000)), None)
    part = calibration_part(data, folder=Path("out"), seed=0)
    assert (part.path, part.samples) == (Path("out/calibration.npz"), 300)
    shares = np.bincount(stored(part)["y"]) / 300
    assert shares == pytest.approx(np.bincount(samples(2000)["y"]) / 2000, abs=0.005)
