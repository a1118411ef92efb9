"""The parts of a run's page on unusual inputs: slices of the data, corruptions, and edge inputs."""

from __future__ import annotations

from collections.abc import Sequence

from edgeq.evaluation.edge_inputs import EdgeInput
from edgeq.evaluation.robustness import CorruptedFigures, Robustness
from edgeq.evaluation.slices import SliceFigures
from edgeq.pipeline.sections import Section, change, share
from edgeq.report.vector import Axis, Drawing, Line, Lines, LinesPanel, lines
from edgeq.report.view import Table


def slices_section(slices: Sequence[SliceFigures], name: str) -> Section | None:
    """Return the table of the blueprint's slices; None without any."""
    if not slices:
        return None
    table = Table(
        id="by-slice",
        title=f"{name} on slices of the evaluation data",
        headings=("slice", "condition", "samples", "accuracy, float", "accuracy", "change", "agreement"),
        rows=tuple(
            (
                each.name,
                each.where,
                str(each.samples),
                share(each.reference_accuracy),
                share(each.accuracy, each.accuracy_ci95),
                change(each.drop, each.drop_ci95),
                share(each.agreement, each.agreement_ci95),
            )
            for each in slices
        ),
        numeric=(2, 3, 4, 5, 6),
        note="Change is in points of accuracy. In brackets: 95 % intervals.",
    )
    return Section(id="slices", title="Slices", tables=(table,))


def robustness_section(robustness: Robustness | None, name: str) -> Section | None:
    """Return accuracy on corrupted inputs beside the float model's; None without it."""
    if robustness is None:
        return None
    severities = ", ".join(map(str, robustness.severities))
    sentences = [f"{robustness.samples} samples, corrupted at severities {severities} of 5."]
    if robustness.mean_drop is not None:
        moved = change(robustness.mean_drop, robustness.mean_drop_ci95)
        sentences.append(f"Mean change of accuracy over all corruptions: {moved} points.")
    sentences.append(f"Mean agreement with the float model: {share(robustness.mean_agreement)}.")
    return Section(
        id="robustness",
        title="Robustness",
        sentences=tuple(sentences),
        figures=(_severity_figure(robustness, name),),
        tables=(_corruptions_table(robustness, name),),
    )


def _severity_figure(robustness: Robustness, name: str) -> Drawing:
    kinds = list(dict.fromkeys(each.corruption for each in robustness.of_each))
    has_labels = robustness.clean.variant is not None
    panels = []
    for kind in kinds:
        rows = [robustness.clean, *(each for each in robustness.of_each if each.corruption is kind)]
        title = "" if kind is None else kind.value
        both = [_line(name, title, rows, [each.variant for each in rows])]
        both.insert(0, _line("float", title, rows, [each.reference for each in rows]))
        alone = [_line("agreement", title, rows, [each.agreement for each in rows])]
        panels.append(LinesPanel(title=title, lines=tuple(both if has_labels else alone)))
    what = "accuracy" if has_labels else "agreement"
    return lines(
        Lines(
            id="severities",
            title=f"{what.capitalize()} by severity of a corruption",
            caption="Severity 0 is the same samples without a corruption.",
            x=Axis(title="severity"),
            y=Axis(title=f"{what} (%)", unit=0.01),
            panels=tuple(panels),
        )
    )


def _line(
    name: str, corruption: str, rows: Sequence[CorruptedFigures], values: Sequence[float | None]
) -> Line:
    known = [(row.severity, value) for row, value in zip(rows, values, strict=True) if value is not None]
    return Line(
        name=name,
        points=tuple((float(severity), value) for severity, value in known),
        texts=tuple(f"{corruption} {severity}, {name}: {share(value)}" for severity, value in known),
    )


def _corruptions_table(robustness: Robustness, name: str) -> Table:
    return Table(
        id="by-corruption",
        title=f"{name} on corrupted inputs",
        headings=("corruption", "severity", "accuracy, float", "accuracy", "change", "agreement"),
        rows=tuple(
            (
                "none" if each.corruption is None else each.corruption.value,
                str(each.severity),
                share(each.reference),
                share(each.variant),
                change(each.drop, each.drop_ci95),
                share(each.agreement, each.agreement_ci95),
            )
            for each in (robustness.clean, *robustness.of_each)
        ),
        numeric=(1, 2, 3, 4, 5),
        note="Change is in points of accuracy. In brackets: 95 % intervals.",
    )


def edge_inputs_section(inputs: Sequence[EdgeInput], name: str) -> Section | None:
    """Return what both models answer at the edge of what they can get; None without any."""
    if not inputs:
        return None
    table = Table(
        id="by-edge",
        title="Inputs at the edge of what a model can get",
        headings=("input", "samples", "float model finite", f"{name} finite", "same class"),
        rows=tuple(
            (
                each.kind.value,
                str(each.samples),
                _yes(each.reference_finite),
                _yes(each.finite),
                share(each.same_class),
            )
            for each in inputs
        ),
        numeric=(1, 4),
        note="A dash: the type of the input has no such value, or the models give no class.",
    )
    return Section(id="edge-inputs", title="Edge inputs", tables=(table,))


def _yes(value: bool | None) -> str:
    return {True: "yes", False: "NO", None: "-"}[value]
