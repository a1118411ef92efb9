"""Recipes as data: what is written comes back, what is unknown is refused by name."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq_converters.recipe import Backend, Recipe, Switch
from edgeq_converters.values import Scheme

recipes = st.builds(
    Recipe,
    scheme=st.sampled_from(Scheme),
    io=st.sampled_from(["int8", "float32"]),
    calibrator=st.sampled_from(["minmax", "percentile:99.9"]),
    bias_correction=st.sampled_from(Switch),
    equalization=st.sampled_from(Switch),
    backend=st.sampled_from(Backend),
    float_ops=st.lists(st.text(), max_size=3).map(tuple),
    int16_ops=st.none() | st.lists(st.text(), max_size=3).map(tuple),
    seed=st.integers(0, 2**31),
)


@given(recipes)
def test_a_recipe_survives_a_round_trip(recipe: Recipe) -> None:
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": "edgeq.recipe/9"}, "edgeq.recipe/9"),
        ({"schema": None}, "None"),
        ({"calibratr": "minmax"}, "unknown key 'calibratr'"),
        ({"scheme": "int9"}, "int9"),
        ({"backend": "onnx"}, "onnx"),
        ({"int16_ops": "x"}, "int16_ops: expected a list of names"),
    ],
)
def test_unknown_keys_and_values_are_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Recipe.from_dict({**Recipe(scheme=Scheme.INT8).to_dict(), **change})


def test_a_scheme_is_needed() -> None:
    with pytest.raises(ValueError, match="'scheme' is missing"):
        Recipe.from_dict({"schema": "edgeq.recipe/1"})
