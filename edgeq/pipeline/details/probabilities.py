"""The part of a run's page on probabilities: whether they are as right as they say."""

from __future__ import annotations

from edgeq.evaluation.probabilities import Calibration, Probabilities
from edgeq.pipeline.sections import Section, share
from edgeq.report.vector import Axis, Drawing, Line, Lines, LinesPanel, lines
from edgeq.report.view import Table
from edgeq.units import format_percent


def probabilities_section(probabilities: Probabilities | None, name: str) -> Section | None:
    """Return the reliability diagram and the errors of probabilities; None without them."""
    if probabilities is None:
        return None
    return Section(
        id="probabilities",
        title="Probabilities",
        figures=(_reliability_figure(probabilities, name),),
        tables=(_table(probabilities, name),),
    )


def _reliability_figure(probabilities: Probabilities, name: str) -> Drawing:
    return lines(
        Lines(
            id="reliability",
            title="Reliability diagram",
            caption="On the dotted diagonal a model is right as often as it says; below it, it is too sure. "
            "The larger a mark, the more samples have about this confidence.",
            x=Axis(title="confidence (%)", unit=0.01),
            y=Axis(title="accuracy (%)", unit=0.01),
            panels=(
                LinesPanel(
                    title="",
                    lines=(
                        _line("float", probabilities.reference),
                        _line(name, probabilities.variant),
                    ),
                ),
            ),
            diagonal=True,
            y_range=(-3, 103),
        )
    )


def _line(name: str, calibration: Calibration) -> Line:
    points, texts, counts = [], [], []
    for each in calibration.bins:
        if each.confidence is None or each.accuracy is None:
            continue
        points.append((each.confidence, each.accuracy))
        sure, right = format_percent(each.confidence), format_percent(each.accuracy)
        counts.append(each.samples)
        texts.append(f"{name}: {right} right at a confidence of {sure}, {each.samples} samples")
    weights = tuple(count / sum(counts) for count in counts)
    return Line(name=name, points=tuple(points), texts=tuple(texts), weights=weights)


def _table(probabilities: Probabilities, name: str) -> Table:
    both = (probabilities.reference, probabilities.variant)
    rows = (
        (
            "expected calibration error",
            *(share(each.ece, each.ece_ci95) for each in both),
        ),
        ("the same over bins of equal count", *(format_percent(each.ece_adaptive) for each in both)),
        ("Brier score (0 to 2)", *(f"{each.brier:.4f}" for each in both)),
        ("negative log-likelihood", *(f"{each.nll:.4f}" for each in both)),
    )
    return Table(
        id="calibration-errors",
        title="Errors of the probabilities; smaller is better",
        headings=("figure", "float", name),
        rows=rows,
        numeric=(1, 2),
        note=f"The float model's output holds {probabilities.scores.value}. In brackets: 95 % intervals.",
    )
