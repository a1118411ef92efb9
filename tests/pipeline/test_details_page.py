"""The parts of a run's page on the chosen model: their marks and tables have the values of the details."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edgeq.evaluation import Details
from edgeq.pipeline.details import details_sections
from edgeq.pipeline.page import run_page
from tests.pipeline.examined import WORDS, classifier, other_tasks
from tests.pipeline.results import Page, result_of

WHEN = datetime(2030, 1, 2, 3, 4, tzinfo=UTC)
NAME = "int8"


@pytest.fixture(scope="module")
def details() -> Details:
    return classifier()


@pytest.fixture(scope="module")
def html(details: Details, tmp_path_factory: pytest.TempPathFactory) -> str:
    return run_page(result_of(tmp_path_factory.mktemp("result"), details=details), now=lambda: WHEN)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_the_changes_of_recall_are_those_of_the_json(page: Page) -> None:
    classes = page.document["details"]["classes"]
    expected = {each["name"]: each["recall_delta"] for each in classes["of_each"]}
    drawn = {mark["data-name"]: float(mark["data-value"]) for mark in page.marks["class-changes"]}
    assert drawn == expected
    assert list(drawn.values()) == sorted(drawn.values())
    (worst,) = [mark for mark in page.marks["class-changes"] if "data-low" in mark]
    low, high = classes["worst"]["drop_ci95"]
    assert worst["data-name"] == classes["worst"]["name"]
    assert (float(worst["data-low"]), float(worst["data-high"])) == (-high, -low)


def test_the_confusion_matrix_is_that_of_the_json(page: Page) -> None:
    counts = page.document["details"]["classes"]["confusion"]
    drawn = [
        [int(mark["data-count"]) for mark in page.marks["confusion"] if mark["data-row"] == str(row)]
        for row in range(len(counts))
    ]
    assert drawn == counts
    assert sum(map(sum, drawn)) == 700


def test_the_reliability_diagram_has_the_bins_of_the_json(page: Page) -> None:
    probabilities = page.document["details"]["probabilities"]
    for series, model in (("float", "reference"), ("int8", "variant")):
        bins = [each for each in probabilities[model]["bins"] if each["samples"]]
        drawn = [
            (float(mark["data-x"]), float(mark["data-y"]))
            for mark in page.marks["reliability"]
            if mark["data-series"] == series
        ]
        assert drawn == [(each["confidence"], each["accuracy"]) for each in bins]
        weights = [
            float(mark["data-weight"]) for mark in page.marks["reliability"] if mark["data-series"] == series
        ]
        assert weights == [each["samples"] / 700 for each in bins]


def test_the_severities_have_the_accuracies_of_the_json(page: Page) -> None:
    robustness = page.document["details"]["robustness"]
    drawn = {
        (mark["data-panel"], mark["data-series"], float(mark["data-x"])): float(mark["data-y"])
        for mark in page.marks["severities"]
    }
    expected = {}
    for each in robustness["of_each"]:
        for series, model in (("float", "reference"), ("int8", "variant")):
            expected[each["corruption"], series, float(each["severity"])] = each[model]
            expected[each["corruption"], series, 0.0] = robustness["clean"][model]
    assert drawn == expected


def test_a_page_with_every_part_is_small_and_its_ids_are_unique(page: Page, html: str) -> None:
    assert len(html.encode("utf-8")) < 1_000_000
    assert len(page.ids) == len(set(page.ids))
    sections = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert sections == [
        "limits",
        "figures",
        "candidates",
        "skipped",
        "refused",
        "classes",
        "probabilities",
        "slices",
        "robustness",
        "edge-inputs",
        "remarks",
        "provenance",
    ]


def test_the_page_says_which_slice_and_which_edge_input_got_worse(page: Page, details: Details) -> None:
    assert "lux < 10" in page.text
    assert "out of range" in page.text
    assert details.classes is not None
    assert f'loses most recall is "{details.classes.worst.name}":' in page.text
    assert "McNemar's exact test: p = " in page.text


@pytest.mark.slow
def test_many_classes_have_neither_a_matrix_nor_a_long_table(tmp_path: Path) -> None:
    many = classifier(tuple(f"class {at}" for at in range(300)), samples=900)
    html = run_page(result_of(tmp_path, details=many), now=lambda: WHEN)
    page = Page(html)
    assert "confusion" not in page.marks
    assert len(page.marks["class-changes"]) == 24
    assert "200 classes without samples or with less loss are left out" in page.text
    assert len(html.encode("utf-8")) < 1_000_000


@pytest.mark.slow
def test_a_hostile_class_stays_text(tmp_path: Path) -> None:
    names = ("<script>alert(1)</script>", "$x^2$ \u202e\x1b", *WORDS[2:])
    html = run_page(result_of(tmp_path, details=classifier(names)), now=lambda: WHEN)
    assert html.count("<script") == 1
    assert not {"\u202e", "\x1b"} & set(html)


def test_robustness_without_labels_shows_the_agreement(details: Details) -> None:
    assert details.robustness is not None
    bare = [
        replace(each, reference=None, variant=None, drop=None, drop_ci95=None)
        for each in (details.robustness.clean, *details.robustness.of_each)
    ]
    unlabelled = replace(
        details.robustness, clean=bare[0], of_each=tuple(bare[1:]), mean_drop=None, mean_drop_ci95=None
    )
    sections = details_sections(
        replace(details, robustness=unlabelled, classes=None, probabilities=None), NAME
    )
    (section,) = [each for each in sections if each.id == "robustness"]
    page = Page(section.figures[0].svg)
    assert {mark["data-series"] for mark in page.marks["severities"]} == {"agreement"}


def test_other_tasks_have_their_tables() -> None:
    details = other_tasks()
    sections = {each.id: each for each in details_sections(details, NAME)}
    assert list(sections) == ["labels", "regression", "anomalies", "segments", "remarks"]
    cells = {
        section.id: {cell for table in section.tables for row in table.rows for cell in row}
        for section in sections.values()
    }
    assert details.regression is not None
    assert details.anomaly is not None
    assert f"{details.regression.variant.mae:.6g}" in cells["regression"]
    assert f"{details.anomaly.variant.auc:.4f}" in cells["anomalies"]
    assert "owl" in cells["labels"]
    assert "100.0 %" in cells["segments"]
    assert "there are no intervals" in sections["remarks"].sentences[-1]
    for section in sections.values():
        for table in section.tables:
            assert {len(row) for row in table.rows} == {len(table.headings)}, table.id


def test_nothing_examined_gives_no_section() -> None:
    empty = Details(task=None, task_reason="", samples=0, independent=True, seed=0)
    assert details_sections(empty, NAME) == ()


def test_no_text_of_a_figure_lies_outside_of_it(html: str) -> None:
    for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        width, height = (float(each) for each in re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)[0])
        for x, y in re.findall(r'<text[^>]* x="([-\d.]+)" y="([-\d.]+)"', svg):
            assert 0 <= float(x) <= width
            assert 0 <= float(y) <= height
