"""Terms of an experiment: their ranges, and which experiments have them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edgeq.errors import UsageError
from edgeq.experiment import ExperimentConfig, ExperimentTerms, SplitBy

CONFIG = ExperimentConfig(
    experiment="m-1", model="m", release_a="a" * 64, release_b="b" * 64, by=SplitBy.CALLS, share=0.1,
    salt="s", arms={"pi": "ab"},
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("share", 0.0),
        ("share", 1.0),
        ("share", float("nan")),
        ("alpha", 0.0),
        ("alpha", 1.0),
        ("worse_by", -0.1),
        ("worse_by", 1.1),
        ("slower_by", 10.1),
        ("slower_by", float("nan")),
        ("salt", ""),
        ("salt", "a\nb"),
        ("salt", "s" * 201),
    ],
)
def test_a_value_out_of_its_range_is_refused_by_its_name(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"^{name}: expected "):
        ExperimentTerms(**{name: value})


def test_the_ends_of_the_ranges_are_terms() -> None:
    ExperimentTerms(worse_by=0, slower_by=0, salt="s" * 200)
    ExperimentTerms(worse_by=1, slower_by=10)


def test_the_default_terms_are_those_of_a_configuration_without_any() -> None:
    assert ExperimentTerms().fit(CONFIG)


def test_terms_fit_an_experiment_that_has_all_of_them() -> None:
    assert ExperimentTerms(salt="s").fit(CONFIG)
    for change in (
        {"by": SplitBy.DEVICES}, {"share": 0.2}, {"salt": "t"}, {"alpha": 0.1}, {"worse_by": 0.1},
        {"slower_by": 0.2},
    ):  # fmt: skip
        assert not replace(ExperimentTerms(), **change).fit(CONFIG), change
