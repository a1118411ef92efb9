"""Tables of an evaluation's details: classes, probabilities, slices, corruptions and edge inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from edgeq.cli.ui import Ui
from edgeq.units import format_percent, format_percent_ci95

if TYPE_CHECKING:
    from edgeq.blueprint import Slice
    from edgeq.evaluation import Details
    from edgeq.evaluation.classes import Classes
    from edgeq.evaluation.robustness import Robustness

Row = list[str]
_MOST_CLASSES = 20
"""Classes up to which each is a row; of more, those that lose most recall."""


def parse_slice(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> tuple[Slice, ...]:
    """Return the slices that `--slice NAME=CONDITION` states."""
    from edgeq.blueprint import Limits, Slice, parse_condition

    slices: dict[str, Slice] = {}
    for text in values:
        name, equal, condition = (part.strip() for part in text.partition("="))
        if not equal or not name or not condition:
            raise click.BadParameter(f"expected NAME=CONDITION, as in night=night, got {text!r}", ctx, param)
        if name in slices:
            raise click.BadParameter(f"two slices are called {name!r}", ctx, param)
        try:
            where = parse_condition(condition)
        except ValueError as error:
            raise click.BadParameter(f"slice {name!r}: {error}", ctx, param) from error
        slices[name] = Slice(name=name, where=where, limits=Limits())
    return tuple(slices.values())


def parse_names(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[str, ...]:
    """Return the names that a text with commas lists."""
    names = [] if text is None else [part.strip() for part in text.split(",")]
    if "" in names:
        raise click.BadParameter("a name is empty", ctx, param)
    return tuple(names)


def show_details(ui: Ui, details: Details) -> None:
    """Write the tables of the parts that there are."""
    task = "unknown" if details.task is None else str(details.task)
    ui.line()
    ui.line(f"task: {task} ({details.task_reason})")
    ui.table(["figure", "float", "variant", "difference"], figure_rows(details))
    if details.classes is not None:
        _show_classes(ui, details.classes)
    if details.slices:
        ui.line()
        ui.table(["slice", "condition", "samples", "float", "variant", "drop", "agreement"], _slices(details))
    if details.robustness is not None:
        _show_robustness(ui, details.robustness)
    ui.line()
    ui.table(["edge input", "samples", "float", "variant", "same class"], _edge_rows(details))


def figure_rows(details: Details) -> list[Row]:
    """Return (figure, float model, variant, difference) of the whole data."""
    rows: list[Row] = []
    if (classes := details.classes) is not None:
        for top in classes.top:
            name = "accuracy" if top.k == 1 else f"top-{top.k}"
            rows.append([name, *map(format_percent, (top.reference, top.variant))])
            rows[-1].append(_drop(top.drop, top.drop_ci95))
        rows.append(_plain("macro F1", classes.reference_macro_f1, classes.macro_f1))
    if (shares := details.probabilities) is not None:
        one, other = shares.reference, shares.variant
        rows += [
            [
                "ECE",
                format_percent(one.ece) + format_percent_ci95(one.ece_ci95),
                format_percent(other.ece) + format_percent_ci95(other.ece_ci95),
                f"{_points(other.ece - one.ece)} points",
            ],
            _plain("adaptive ECE", one.ece_adaptive, other.ece_adaptive),
            _plain("Brier score", one.brier, other.brier),
            _plain("negative log-likelihood", one.nll, other.nll),
        ]
    if (labels := details.multi_label) is not None:
        rows.append(_plain("micro F1", labels.reference_micro_f1, labels.micro_f1))
        if labels.micro_f1_drop is not None:
            rows[-1][-1] = _drop(labels.micro_f1_drop, labels.micro_f1_drop_ci95)
        rows.append(_plain("macro F1", labels.reference_macro_f1, labels.macro_f1))
        rows.append(_plain("mAP", labels.reference_map, labels.mean_average_precision))
    if (errors := details.regression) is not None:
        rows.append(_plain("MAE", errors.reference.mae, errors.variant.mae))
        rows[-1][-1] += _ends(errors.mae_increase_ci95)
        rows.append(_plain("RMSE", errors.reference.rmse, errors.variant.rmse))
        rows[-1][-1] += _ends(errors.rmse_increase_ci95)
        rows.append(_plain("R squared", errors.reference.r2, errors.variant.r2))
        rows.append(_plain("largest error", errors.reference.largest_error, errors.variant.largest_error))
    if (anomaly := details.anomaly) is not None:
        rows.append(_plain("ROC AUC", anomaly.reference.auc, anomaly.variant.auc))
        rows[-1][-1] = _drop(anomaly.auc_drop, anomaly.auc_drop_ci95)
        rows.append(
            _plain(
                "average precision", anomaly.reference.average_precision, anomaly.variant.average_precision
            )
        )
    if (areas := details.segmentation) is not None:
        rows.append(_plain("mean IoU", areas.reference_mean_iou, areas.mean_iou))
        if areas.mean_iou_drop is not None:
            rows[-1][-1] = _drop(areas.mean_iou_drop, areas.mean_iou_drop_ci95)
        rows.append(_plain("pixel accuracy", areas.reference_pixel_accuracy, areas.pixel_accuracy))
        rows += [_plain(f"IoU of {each.name}", each.reference, each.variant) for each in areas.of_each]
    return rows or [["none", "-", "-", "-"]]


def _show_classes(ui: Ui, classes: Classes) -> None:
    listed = sorted(classes.of_each, key=lambda each: each.recall_delta or 0.0)[:_MOST_CLASSES]
    ui.line()
    ui.table(
        ["class", "samples", "recall", "change", "precision", "change", "F1", "change"],
        [
            [
                each.name,
                str(each.support),
                _share(each.variant.recall),
                _points(each.recall_delta),
                _share(each.variant.precision),
                _points(each.precision_delta),
                _share(each.variant.f1),
                _points(each.f1_delta),
            ]
            for each in listed
        ],
    )
    if len(listed) < len(classes.of_each):
        ui.line(f"the {len(listed)} of {len(classes.of_each)} classes that lose most recall; --json has all")
    worst, change = classes.worst, classes.difference
    ui.line(
        f"worst of {worst.compared} classes: {worst.name}, recall {_drop(worst.drop, worst.drop_ci95)}"
        f" on {worst.support} samples"
        + (
            f"; so many can show a drop of {format_percent(worst.smallest_drop)}"
            if worst.smallest_drop is not None
            else ""
        )
    )
    p_value = "" if change.p_value is None else f"; McNemar's exact test: p = {change.p_value:.3g}"
    ui.line(f"samples lost: {change.lost}, gained: {change.gained}{p_value}")


def _slices(details: Details) -> list[Row]:
    return [
        [
            each.name,
            each.where,
            str(each.samples),
            _share(each.reference_accuracy),
            _share(each.accuracy),
            "-" if each.drop is None else _drop(each.drop, each.drop_ci95),
            _share(each.agreement) + format_percent_ci95(each.agreement_ci95),
        ]
        for each in details.slices
    ]


def _show_robustness(ui: Ui, robustness: Robustness) -> None:
    ui.line()
    entries = (robustness.clean, *robustness.of_each)
    if robustness.mean_drop is None:
        ui.table(
            ["corruption", "severity", "agreement"],
            [
                [
                    str(each.corruption or "none"),
                    str(each.severity),
                    format_percent(each.agreement) + format_percent_ci95(each.agreement_ci95),
                ]
                for each in entries
            ],
        )
        figure = f"mean agreement {format_percent(robustness.mean_agreement)}"
    else:
        ui.table(
            ["corruption", "severity", "float", "variant", "drop"],
            [
                [
                    str(each.corruption or "none"),
                    str(each.severity),
                    _share(each.reference),
                    _share(each.variant),
                    "-" if each.drop is None else _drop(each.drop, each.drop_ci95),
                ]
                for each in entries
            ],
        )
        figure = f"mean drop {_drop(robustness.mean_drop, robustness.mean_drop_ci95)}"
    severities = ", ".join(map(str, robustness.severities))
    ui.line(f"{figure} of {robustness.samples} samples at the severities {severities} of 5")


def _edge_rows(details: Details) -> list[Row]:
    answer = {True: "finite", False: "NaN or infinity", None: "not run"}
    return [
        [
            str(each.kind),
            str(each.samples),
            answer[each.reference_finite],
            answer[each.finite],
            _share(each.same_class),
        ]
        for each in details.edge_inputs
    ]


def _plain(name: str, reference: float | None, variant: float | None) -> Row:
    change = "-" if reference is None or variant is None else f"{variant - reference:+.4g}"
    return [name, _number(reference), _number(variant), change]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _ends(ends: tuple[float, float] | None) -> str:
    return "" if ends is None else f" (95 %: {ends[0]:+.4g} to {ends[1]:+.4g})"


def _share(value: float | None) -> str:
    return "-" if value is None else format_percent(value)


def _points(value: float | None) -> str:
    # Without the sum, a change of zero that was a negated drop would be -0.0.
    return "-" if value is None else f"{100 * value + 0.0:+.1f}"


def _drop(value: float, ends: tuple[float, float] | None) -> str:
    """Return a drop with the sign of the change: `-1.2 points (95 %: -2.0 to +0.1)`."""
    interval = "" if ends is None else f" (95 %: {_points(-ends[1])} to {_points(-ends[0])})"
    return f"{_points(-value)} points{interval}"
