"""The page of a run: its numbers are those of the run's JSON, and no text can alter it."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edgeq.blueprint import Limits
from edgeq.errors import MissingExtra
from edgeq.pipeline import RunResult
from edgeq.pipeline.page import page_sections, require_page_libraries, run_page
from edgeq.pipeline.sections import verdicts
from edgeq.text import finite
from tests.pipeline.results import LIMITS, ROWS, Page, result_of

WHEN = datetime(2030, 1, 2, 3, 4, tzinfo=UTC)
HOSTILE = "</script><script>alert(1)</script><b>$x_1$ \u202egnp\x1b\ufffe"


def page_of(result: RunResult) -> str:
    return run_page(result, now=lambda: WHEN)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return result_of(tmp_path_factory.mktemp("result"))


@pytest.fixture(scope="module")
def html(result: RunResult) -> str:
    return page_of(result)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_the_verdict_comes_first(result: RunResult, html: str) -> None:
    body = html.partition("<body>")[2]
    visible = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body)).strip()
    assert result.verdict.startswith("int8 holds 5 of 6 gates: 14.3 KiB, -0.1 points (95 %: -0.9 to +0.7), ")
    assert visible.startswith(f"kws {result.verdict}.")


@pytest.mark.parametrize(
    ("figure", "key"), [("pareto-size", None), ("pareto-latency-0", "host"), ("pareto-latency-1", "pi-test")]
)
def test_the_marks_have_the_values_of_the_json(page: Page, figure: str, key: str | None) -> None:
    candidates = page.document["candidates"]
    expected = {
        each["name"]: (
            each["size_bytes"] if key is None else each["latency_ns"][key]["p50_ns"],
            each["metrics"]["accuracy"],
        )
        for each in candidates
        if key is None or key in each["latency_ns"]
    }
    drawn = {mark["data-name"]: (float(mark["data-x"]), float(mark["data-y"])) for mark in page.marks[figure]}
    assert drawn == expected
    chosen = [mark["data-name"] for mark in page.marks[figure] if mark["data-kind"] == "chosen"]
    assert chosen == [page.document["chosen"]]


def test_the_latencies_drawn_are_those_of_the_json(page: Page) -> None:
    measured = {each["name"]: each["latency_ns"] for each in page.document["candidates"]}
    marks = page.marks["latency-1"]
    assert len(marks) == len(ROWS) - 1  # one was not measured on the device
    for mark in marks:
        latency = measured[mark["data-name"]]["pi-test"]
        ends = [int(mark[f"data-{name}"]) for name in ("low", "median", "high", "p95")]
        assert ends == [latency[name] for name in ("low_ns", "p50_ns", "high_ns", "p95_ns")]


def test_a_point_is_on_the_front_if_nothing_is_better_in_both(page: Page) -> None:
    kinds = {mark["data-name"]: mark["data-kind"] for mark in page.marks["pareto-size"]}
    assert kinds["int8"] == "chosen"
    assert {name for name, kind in kinds.items() if kind == "on the front"} == {"pruned-30-int8", "qat-int8"}


def test_of_equal_accuracies_the_smallest_is_on_the_front(tmp_path: Path) -> None:
    page = Page(page_of(result_of(tmp_path, rows=ROWS[:-1])))
    kinds = {mark["data-name"]: mark["data-kind"] for mark in page.marks["pareto-size"]}
    assert kinds["int16x8"] == "on the front"
    assert {kinds[name] for name in ("float32", "float16", "int8-mixed-1")} == {"dominated"}


def test_the_json_is_that_of_the_run_without_folders(result: RunResult, page: Page, html: str) -> None:
    document = finite(result.to_json())
    assert page.document["candidates"][0]["gates"] == document["candidates"][0]["gates"]
    assert page.document["lineage"]["output"]["sha256"] == document["lineage"]["output"]["sha256"]
    assert page.document["lineage"]["source"]["path"] == "kws.keras"
    assert "secret-project" in str(document)
    assert "secret-project" not in html


def test_the_page_says_what_was_left_out_and_why(page: Page) -> None:
    assert "EQ332: no operation has weights that int4 suits" in page.text
    assert "data.training is missing" in page.text


def test_a_page_without_a_chosen_model_says_what_to_do_next(tmp_path: Path) -> None:
    result = result_of(tmp_path, limits=replace(LIMITS, accuracy_min=0.99))
    assert result.chosen is None
    page = Page(page_of(result))
    assert f"Next: {result.advice}." in page.text
    assert "the nearest candidate" in page.text
    assert page.text.count("FAILS") > 1
    assert {mark["data-kind"] for mark in page.marks["pareto-size"]} == {"on the front", "dominated"}


def test_a_limit_within_the_sampling_error_is_named(tmp_path: Path) -> None:
    result = result_of(tmp_path, limits=Limits(accuracy_drop_max=0.005))
    page = Page(page_of(result))
    assert "not beyond the sampling error of the data: accuracy_drop_max." in page.text
    assert "holds, within the sampling error" in page.text


def test_what_is_missing_in_the_result_is_said_at_the_top(tmp_path: Path) -> None:
    result = replace(result_of(tmp_path), notes=("int8 was not examined: no labels",))
    lines = [line.text for line in verdicts(result)]
    assert lines == [f"{result.verdict}.", "int8 was not examined: no labels."]


def test_a_limit_that_this_machine_was_judged_by_is_named(tmp_path: Path, page: Page) -> None:
    sentence = "Judged by figures of this machine, which do not prove it for a device: latency_p95_max."
    assert sentence in page.text
    result = result_of(tmp_path)
    (section, *_) = page_sections(replace(result, targets=result.targets[1:]))
    assert section.sentences == ()


def test_equal_accuracies_give_plots_of_noise(tmp_path: Path) -> None:
    rows = tuple((*row[:3], 683, *row[4:]) for row in ROWS)
    page = Page(page_of(result_of(tmp_path, rows=rows)))
    worst = {each["name"]: each["metrics"]["output_sqnr_db"] for each in page.document["candidates"]}
    drawn = {mark["data-name"]: float(mark["data-y"]) for mark in page.marks["pareto-size"]}
    assert drawn == {name: value for name, value in worst.items() if value is not None}
    assert "outputs equal those of the float model: float32." in page.text


def test_a_hostile_name_stays_text(tmp_path: Path) -> None:
    result = result_of(tmp_path, names={"int8": HOSTILE}, device=HOSTILE)
    html = page_of(result)
    page = Page(html)
    assert html.count("<script") == 1
    assert "alert(1)</script>" not in html
    assert not {"\u202e", "\x1b"} & set(html)
    assert page.document["chosen"] == HOSTILE
    assert not [tag for tag, _ in page.tags if tag == "b"]


def test_the_page_loads_nothing_and_allows_no_script(page: Page, html: str) -> None:
    policy = next(attributes["content"] for tag, attributes in page.tags if "http-equiv" in attributes)
    assert "default-src 'none'; script-src 'none'" in policy
    assert [attributes.get("type") for tag, attributes in page.tags if tag == "script"] == [
        "application/json"
    ]
    links = [
        attributes[name] for _, attributes in page.tags for name in ("src", "href") if name in attributes
    ]
    assert [link for link in links if not link.startswith(("#", "data:"))] == []
    assert not re.search(r"url\((?!#)", html)
    assert len(html.encode("utf-8")) < 1_000_000


def test_a_screen_reader_gets_names_for_figures_tables_and_cells(page: Page) -> None:
    assert len(page.ids) == len(set(page.ids))
    for tag, attributes in page.tags:
        for name in ("aria-labelledby", "aria-describedby"):
            assert attributes.get(name, page.ids[0]) in page.ids
        if tag == "svg":
            assert attributes["role"] == "img"
            assert attributes["aria-label"]
        if tag == "th":
            assert attributes["scope"] in ("col", "row")
        if tag == "a":
            assert attributes["href"].removeprefix("#") in page.ids
    tables = [attributes["id"] for tag, attributes in page.tags if tag == "table"]
    assert [f"{table}-caption" in page.ids for table in tables] == [True] * len(tables)


def test_every_row_has_a_cell_for_each_heading(result: RunResult) -> None:
    for section in page_sections(result):
        for table in section.tables:
            assert {len(row) for row in table.rows} == {len(table.headings)}, table.id


def test_the_same_result_gives_the_same_page(result: RunResult, html: str) -> None:
    assert page_of(result) == html


@pytest.mark.parametrize("missing", ["matplotlib", "jinja2"])
def test_a_missing_library_is_reported_before_the_work(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtra) as caught:
        require_page_libraries()
    assert "edgeq[dashboard]" in str(caught.value.hint)
    assert missing in str(caught.value)
