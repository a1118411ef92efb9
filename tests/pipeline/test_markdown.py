"""A run as Markdown and as a notebook's output."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edgeq.pipeline import RunResult
from edgeq.pipeline.markdown import escaped, run_markdown
from tests.pipeline.results import LIMITS, Page, result_of

HOSTILE = "a|b\n# <img src=x> [l](http://x) @admin #12 `c` \x1b"


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return result_of(tmp_path_factory.mktemp("result"))


def test_the_summary_has_verdict_limits_candidates_and_reasons(result: RunResult) -> None:
    text = run_markdown(result)
    assert text.splitlines()[:3] == ["## kws", "", f"**Pass:** {escaped(result.verdict)}."]
    assert "| accuracy\\_drop\\_max | at most 2.0 % | 0.1 % | -0.7 % to 0.9 % | holds |" in text
    assert "| int8 (chosen) | 14.3 KiB | 9.35 us (11.2 us) | 37.4 us (44.9 us) |" in text
    assert "| qat | quantization-aware training | data.training is missing |" in text
    assert "EQ332: no operation has weights that int4 suits" in text


def test_every_row_of_a_table_has_the_same_number_of_cells(tmp_path: Path) -> None:
    text = run_markdown(result_of(tmp_path, names={"int8": HOSTILE}, device=HOSTILE))
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 4
    for table in tables:
        assert len({line.replace("\\|", "").count("|") for line in table}) == 1, table


def test_a_name_has_no_meaning_in_a_summary(tmp_path: Path) -> None:
    text = run_markdown(result_of(tmp_path, names={"int8": HOSTILE}))
    assert "\\<img src=x\\>" in text
    assert "<img" not in text.replace("\\<img", "")
    assert "@admin" not in text
    assert "#12" not in text
    assert "\\[l\\](http" in text
    assert "\\`c\\`" in text


def test_a_failed_run_says_so_first(tmp_path: Path) -> None:
    result = result_of(tmp_path, limits=replace(LIMITS, accuracy_min=0.99))
    assert run_markdown(result).splitlines()[2] == f"**Fail:** {escaped(result.verdict)}."
    assert "no file chosen" in run_markdown(result)


def test_a_notebook_shows_verdict_plots_and_table(result: RunResult) -> None:
    html = result._repr_html_()
    page = Page(html)
    assert page.text.startswith(result.verdict)
    assert not {tag for tag, _ in page.tags} & {"html", "head", "body", "script", "style", "link"}
    assert [len(marks) for marks in page.marks.values()] == [9, 9, 8]
    assert len(page.ids) == len(set(page.ids))
    assert "int8 (chosen)" in page.text


def test_two_results_in_a_notebook_share_no_id(result: RunResult, tmp_path: Path) -> None:
    other = result_of(tmp_path, name="digits")
    assert not set(Page(result._repr_html_()).ids) & set(Page(other._repr_html_()).ids)


def test_a_notebook_without_the_extra_has_no_plots(
    result: RunResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = Page(result._repr_html_())
    assert page.marks == {}
    assert "pip install 'edgeq[dashboard]'" in page.text
    assert "int8 (chosen)" in page.text


def test_a_hostile_name_is_text_in_a_notebook(tmp_path: Path) -> None:
    html = result_of(tmp_path, names={"int8": HOSTILE})._repr_html_()
    assert "<img" not in html
    assert "\x1b" not in html
