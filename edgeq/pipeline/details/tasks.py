"""The parts of a run's page on tasks without one class a sample: labels, values, anomalies, segments."""

from __future__ import annotations

from collections.abc import Sequence

from edgeq.evaluation.anomaly import Anomaly
from edgeq.evaluation.multi_label import MultiLabel
from edgeq.evaluation.regression import Regression
from edgeq.evaluation.segmentation import Segmentation
from edgeq.pipeline.details.classes import MOST_ROWS
from edgeq.pipeline.sections import Section, change, share
from edgeq.report.view import Table

Ends = tuple[float, float] | None


def multi_label_section(multi_label: MultiLabel | None, name: str) -> Section | None:
    """Return F1 and average precision of each label; None without labels."""
    if multi_label is None:
        return None
    overall = _two_models(
        name,
        "label-means",
        "Over all labels",
        (
            ("micro F1", share(multi_label.reference_micro_f1), share(multi_label.micro_f1)),
            ("macro F1", share(multi_label.reference_macro_f1), share(multi_label.macro_f1)),
            (
                "mean average precision",
                share(multi_label.reference_map),
                share(multi_label.mean_average_precision),
            ),
        ),
    )
    each_label = Table(
        id="by-label",
        title="Labels",
        headings=("label", "samples", "F1, float", "F1", "average precision, float", "average precision"),
        rows=tuple(
            (
                each.name,
                str(each.support),
                share(each.reference.f1),
                share(each.variant.f1),
                share(each.reference.average_precision),
                share(each.variant.average_precision),
            )
            for each in multi_label.of_each[:MOST_ROWS]
        ),
        numeric=(1, 2, 3, 4, 5),
        note=_left_out(multi_label.of_each, "labels"),
    )
    moved = change(multi_label.micro_f1_drop, multi_label.micro_f1_drop_ci95)
    return Section(
        id="labels",
        title="Labels",
        sentences=(f"Micro F1 changes by {moved} points.",),
        tables=(overall, each_label),
    )


def regression_section(regression: Regression | None, name: str) -> Section | None:
    """Return the errors of a regression; None without one."""
    if regression is None:
        return None
    both = (regression.reference, regression.variant)
    table = _two_models(
        name,
        "errors",
        "Errors in the unit of the labels; smaller is better",
        (
            ("mean absolute error", *(f"{each.mae:.6g}" for each in both)),
            ("root mean square error", *(f"{each.rmse:.6g}" for each in both)),
            ("largest error", *(f"{each.largest_error:.6g}" for each in both)),
            ("R² (larger is better)", *("-" if each.r2 is None else f"{each.r2:.4f}" for each in both)),
        ),
    )
    mae = _increase(regression.mae_increase, regression.mae_increase_ci95)
    rmse = _increase(regression.rmse_increase, regression.rmse_increase_ci95)
    sentence = f"The mean absolute error changes by {mae}, the root mean square error by {rmse}."
    return Section(id="regression", title="Errors", sentences=(sentence,), tables=(table,))


def anomaly_section(anomaly: Anomaly | None, name: str) -> Section | None:
    """Return how well the scores separate anomalies; None without scores."""
    if anomaly is None:
        return None
    both = (anomaly.reference, anomaly.variant)
    table = _two_models(
        name,
        "separation",
        "How well the score separates anomalies",
        (
            ("area under the ROC curve", *(f"{each.auc:.4f}" for each in both)),
            ("average precision", *(f"{each.average_precision:.4f}" for each in both)),
        ),
    )
    moved = _increase(-anomaly.auc_drop, _negated(anomaly.auc_drop_ci95))
    sentences = (
        f"The score is {anomaly.score}; {anomaly.anomalies} samples are anomalies.",
        f"The area under the ROC curve changes by {moved}.",
    )
    return Section(id="anomalies", title="Anomalies", sentences=sentences, tables=(table,))


def segmentation_section(segmentation: Segmentation | None, name: str) -> Section | None:
    """Return the overlap of each class; None without segments."""
    if segmentation is None:
        return None
    overall = _two_models(
        name,
        "segment-means",
        "Over all classes",
        (
            ("mean overlap (IoU)", share(segmentation.reference_mean_iou), share(segmentation.mean_iou)),
            (
                "places with their label",
                share(segmentation.reference_pixel_accuracy),
                share(segmentation.pixel_accuracy),
            ),
        ),
    )
    each_class = Table(
        id="by-segment",
        title="Overlap by class",
        headings=("class", "places", "overlap, float", "overlap", "change"),
        rows=tuple(
            (
                each.name,
                str(each.pixels),
                share(each.reference),
                share(each.variant),
                "-" if each.delta is None else change(-each.delta, None),
            )
            for each in segmentation.of_each[:MOST_ROWS]
        ),
        numeric=(1, 2, 3, 4),
        note=_left_out(segmentation.of_each, "classes"),
    )
    moved = change(segmentation.mean_iou_drop, segmentation.mean_iou_drop_ci95)
    return Section(
        id="segments",
        title="Segments",
        sentences=(f"The mean overlap changes by {moved} points.",),
        tables=(overall, each_class),
    )


def _two_models(name: str, id: str, title: str, rows: tuple[tuple[str, ...], ...]) -> Table:
    return Table(id=id, title=title, headings=("figure", "float", name), rows=rows, numeric=(1, 2))


def _left_out(rows: Sequence[object], what: str) -> str:
    return f"The first {MOST_ROWS} of {len(rows)} {what}." if len(rows) > MOST_ROWS else ""


def _increase(value: float, ends: Ends) -> str:
    text = f"{value + 0.0:+.4g}"
    return text if ends is None else f"{text} ({ends[0] + 0.0:+.4g} to {ends[1] + 0.0:+.4g})"


def _negated(ends: Ends) -> Ends:
    return None if ends is None else (-ends[1], -ends[0])
