"""The part of a run's page on classes: recall by class, the confusion matrix, and the paired test."""

from __future__ import annotations

from collections.abc import Sequence

from edgeq.evaluation.classes import Classes, ClassFigures, Difference, WorstClass
from edgeq.pipeline.sections import Section, change, share
from edgeq.report.vector import Axis, Bar, Bars, Drawing, Heat, bars, heat
from edgeq.report.vector.heat import MOST_NAMES
from edgeq.report.view import Table

MOST_ROWS = 100
"""Classes in the table; of more, those that lose most recall."""
_MOST_BARS = 24


def classes_section(classes: Classes | None, name: str) -> Section | None:
    """Return what each class gained or lost; None without classes."""
    if classes is None:
        return None
    drawings = (_recall_figure(classes, name), _confusion_figure(classes, name))
    return Section(
        id="classes",
        title="Classes",
        sentences=(_paired(classes.difference, name), _worst(classes)),
        figures=tuple(each for each in drawings if each is not None),
        tables=(_classes_table(classes.of_each, name), _top_table(classes, name)),
    )


def _paired(difference: Difference, name: str) -> str:
    moved = difference.lost + difference.gained
    text = (
        f"Of the samples, the float model alone has {difference.lost} right and {name} alone "
        f"{difference.gained}: accuracy changes by {change(difference.drop, difference.drop_ci95)} points"
    )
    if difference.p_value is None or not moved:
        return f"{text}."
    return f"{text}. McNemar's exact test: p = {difference.p_value:.2g}."


def _worst(classes: Classes) -> str:
    worst = classes.worst
    moved = change(worst.drop, worst.drop_ci95)
    text = f'The class that loses most recall is "{worst.name}": {moved} points, of {worst.support} samples'
    return f"{text}; the interval allows for the choice among {worst.compared} classes."


def _by_loss(figures: Sequence[ClassFigures]) -> list[ClassFigures]:
    """Return the classes that have samples, those that lose most recall first."""
    known = [each for each in figures if each.recall_delta is not None]
    return sorted(known, key=lambda each: each.recall_delta or 0.0)


def _recall_figure(classes: Classes, name: str) -> Drawing | None:
    ordered = _by_loss(classes.of_each)
    if not ordered:
        return None
    shown = ordered[:_MOST_BARS]
    more = "" if len(shown) == len(ordered) else f" The {len(shown)} of {len(ordered)} that lose most."
    return bars(
        Bars(
            id="class-changes",
            title="Change of recall by class",
            caption=f"Recall of {name} minus that of the float model; to the left is worse. The "
            f"class that loses most has its interval.{more}",
            x=Axis(title="change of recall (points)", unit=0.01),
            bars=tuple(_bar(each, classes.worst) for each in shown),
        )
    )


def _bar(figures: ClassFigures, worst: WorstClass) -> Bar:
    delta = figures.recall_delta or 0.0
    ends = worst.drop_ci95 if figures.index == worst.index else None
    recall = f"{share(figures.reference.recall)} to {share(figures.variant.recall)}"
    return Bar(
        name=figures.name,
        value=delta,
        interval=None if ends is None else (-ends[1], -ends[0]),
        text=f"{figures.name}: {change(-delta, ends)} points, {recall}",
    )


def _confusion_figure(classes: Classes, name: str) -> Drawing | None:
    counts, reference = classes.confusion, classes.reference_confusion
    if counts is None or reference is None or len(counts) > MOST_NAMES:
        return None
    names = tuple(each.name for each in classes.of_each)
    texts = tuple(
        tuple(
            f"{names[row]} as {names[column]}: {count} (float model {reference[row][column]})"
            for column, count in enumerate(line)
        )
        for row, line in enumerate(counts)
    )
    return heat(
        Heat(
            id="confusion",
            title=f"Confusion matrix of {name}",
            caption="Each row is a true class: the denser a cell, the greater its share of the row.",
            names=names,
            counts=tuple(tuple(int(count) for count in line) for line in counts),
            texts=texts,
            rows="true class",
            columns="predicted class",
        )
    )


def _classes_table(figures: Sequence[ClassFigures], name: str) -> Table:
    ordered = _by_loss(figures)
    shown = ordered[:MOST_ROWS]
    left_out = len(figures) - len(shown)
    note = "Change is in points."
    if left_out:
        note += f" {left_out} classes without samples or with less loss are left out."
    return Table(
        id="by-class",
        title=f"Classes of {name}, those that lose most recall first",
        headings=(
            "class",
            "samples",
            "recall, float",
            "recall",
            "change",
            "precision, float",
            "precision",
            "change",
            "F1, float",
            "F1",
            "change",
        ),
        rows=tuple(_class_row(each) for each in shown),
        numeric=tuple(range(1, 11)),
        note=note,
    )


def _class_row(figures: ClassFigures) -> tuple[str, ...]:
    cells = [figures.name, str(figures.support)]
    for name in ("recall", "precision", "f1"):
        delta = getattr(figures, f"{name}_delta")
        cells += [share(getattr(figures.reference, name)), share(getattr(figures.variant, name))]
        cells.append("-" if delta is None else change(-delta, None))
    return tuple(cells)


def _top_table(classes: Classes, name: str) -> Table:
    return Table(
        id="top-k",
        title="Samples whose label is among the first k answers",
        headings=("k", "float", name, "change in points (95 % interval)"),
        rows=tuple(
            (str(each.k), share(each.reference), share(each.variant), change(each.drop, each.drop_ci95))
            for each in classes.top
        ),
        numeric=(1, 2, 3),
    )
