"""Figures of a classifier beside its float model: each class, top-k, and the difference with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeq.evaluation.bootstrap import Ends
from edgeq.evaluation.undefined import finite, mean, minus
from edgeq_converters import intervals

Real = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Counts = tuple[tuple[int, ...], ...]
MOST_IN_MATRIX = 100
"""Classes up to which the confusion matrices are kept."""
TOP = (1, 2, 3, 5)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScore:
    """Precision, recall and F1 of one class, 0..1; None where no sample defines it."""

    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassFigures:
    """One class of both models.

    Attributes:
        support: samples with this label.
        precision_delta, recall_delta, f1_delta: the variant's figure minus the float model's.
    """

    index: int
    name: str
    support: int
    reference: ClassScore
    variant: ClassScore
    precision_delta: float | None
    recall_delta: float | None
    f1_delta: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TopK:
    """Share of samples whose label is among the k largest outputs.

    Attributes:
        drop: the float model's share minus the variant's.
        drop_ci95: Newcombe's interval; None for samples that depend on each other.
    """

    k: int
    reference: float
    variant: float
    drop: float
    drop_ci95: Ends | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstClass:
    """The class that loses most recall.

    Attributes:
        drop: recall of the float model minus the variant's, on this class's samples.
        drop_ci95: Newcombe's interval, widened for the choice among `compared` classes (Bonferroni): the
            intervals of all classes hold together with 95 %. None for samples that depend on each other.
        smallest_drop: the smallest drop that the samples of this class could show so.
        compared: classes with at least one sample.
    """

    index: int
    name: str
    support: int
    drop: float
    drop_ci95: Ends | None
    smallest_drop: float | None
    compared: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What changed between the models, sample by sample.

    Attributes:
        lost: samples that the float model has right and the variant wrong.
        gained: the reverse.
        p_value: of McNemar's exact test: the chance of counts as unequal or more if both models were equally
            good. None for samples that depend on each other.
        drop: accuracy of the float model minus the variant's.
        drop_ci95: Newcombe's interval for paired samples.
        smallest_drop: the smallest drop that so many samples could show.
    """

    lost: int
    gained: int
    p_value: float | None
    drop: float
    drop_ci95: Ends | None
    smallest_drop: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Classes:
    """Figures of a classifier.

    Attributes:
        reference_accuracy, accuracy: of the float model and the variant.
        reference_macro_f1, macro_f1: mean of F1 over the classes that have one.
        of_each: one entry a class, in the order of the output.
        reference_confusion, confusion: row: label, column: answer; None for more than MOST_IN_MATRIX classes.
    """

    reference_accuracy: float
    accuracy: float
    reference_macro_f1: float | None
    macro_f1: float | None
    of_each: tuple[ClassFigures, ...]
    reference_confusion: Counts | None
    confusion: Counts | None
    top: tuple[TopK, ...]
    worst: WorstClass
    difference: Difference


def classes_of(
    reference: Real, variant: Real, labels: Indices, *, names: Sequence[str] = (), independent: bool = True
) -> Classes:
    """Return the figures of two classifiers on the same samples. A pure function.

    Args:
        reference, variant: outputs (samples, classes); the class is the first of the largest values.
        labels: (samples,), 0..classes - 1.
        names: of the classes; their indices without them.
        independent: whether the samples are independent of each other; there are no intervals otherwise.
    """
    count = reference.shape[1]
    named = [names[i] if i < len(names) else str(i) for i in range(count)]
    answers = reference.argmax(axis=1), variant.argmax(axis=1)
    right = answers[0] == labels, answers[1] == labels
    scores = [_scores(labels, each, count) for each in answers]
    support = np.bincount(labels, minlength=count)
    matrices = [_confusion(labels, each, count) for each in answers] if count <= MOST_IN_MATRIX else None
    return Classes(
        reference_accuracy=float(right[0].mean()),
        accuracy=float(right[1].mean()),
        reference_macro_f1=mean([each.f1 for each in scores[0]]),
        macro_f1=mean([each.f1 for each in scores[1]]),
        of_each=tuple(
            _figures(i, named[i], int(support[i]), scores[0][i], scores[1][i]) for i in range(count)
        ),
        reference_confusion=matrices[0] if matrices else None,
        confusion=matrices[1] if matrices else None,
        top=_top(reference, variant, labels, independent=independent),
        worst=_worst(right[0], right[1], labels, named, independent=independent),
        difference=difference_of(right[0], right[1], independent=independent),
    )


def difference_of(before: Mask, after: Mask, *, independent: bool = True) -> Difference:
    """Return what changed between two models.

    McNemar's test in its exact form: under equal models, each of the samples that changed is lost or gained
    with equal chance (McNemar 1947, doi 10.1007/BF02295996).

    Args:
        before, after: whether the float model and the variant have each sample right.
    """
    from scipy.stats import binomtest

    lost, gained = int((before & ~after).sum()), int((~before & after).sum())
    changed = lost + gained
    drop = intervals.drop(before, after)
    p_value = float(binomtest(lost, changed, 0.5).pvalue) if changed else 1.0
    return Difference(
        lost=lost,
        gained=gained,
        p_value=p_value if independent else None,
        drop=drop.share,
        drop_ci95=drop.ci95 if independent else None,
        smallest_drop=drop.smallest if independent else None,
    )


def _scores(labels: Indices, answers: Indices, count: int) -> list[ClassScore]:
    from sklearn.metrics import precision_recall_fscore_support

    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, answers, labels=np.arange(count), zero_division=np.nan
    )
    return [
        ClassScore(precision=finite(precision[i]), recall=finite(recall[i]), f1=finite(f1[i]))
        for i in range(count)
    ]


def _confusion(labels: Indices, answers: Indices, count: int) -> Counts:
    from sklearn.metrics import confusion_matrix

    matrix = confusion_matrix(labels, answers, labels=np.arange(count))
    return tuple(tuple(int(number) for number in row) for row in matrix)


def _figures(index: int, name: str, support: int, reference: ClassScore, variant: ClassScore) -> ClassFigures:
    return ClassFigures(
        index=index,
        name=name,
        support=support,
        reference=reference,
        variant=variant,
        precision_delta=minus(variant.precision, reference.precision),
        recall_delta=minus(variant.recall, reference.recall),
        f1_delta=minus(variant.f1, reference.f1),
    )


def _top(reference: Real, variant: Real, labels: Indices, *, independent: bool) -> tuple[TopK, ...]:
    # The first of equal values comes first, as in the accuracy; an integer model has many equal values.
    orders = [np.argsort(-each, axis=1, kind="stable") for each in (reference, variant)]
    result = []
    for k in TOP:
        if k >= reference.shape[1]:
            break
        hits = [(order[:, :k] == labels[:, None]).any(axis=1) for order in orders]
        drop = intervals.drop(hits[0], hits[1])
        result.append(
            TopK(
                k=k,
                reference=float(hits[0].mean()),
                variant=float(hits[1].mean()),
                drop=drop.share,
                drop_ci95=drop.ci95 if independent else None,
            )
        )
    return tuple(result)


def _worst(
    before: Mask, after: Mask, labels: Indices, names: Sequence[str], *, independent: bool
) -> WorstClass:
    present = np.unique(labels)
    drops = {
        int(each): intervals.drop(before[labels == each], after[labels == each], comparisons=len(present))
        for each in present
    }
    support = {index: int((labels == index).sum()) for index in drops}
    # Of equal drops, the one on more samples is the surer one.
    index = max(drops, key=lambda each: (drops[each].share, support[each]))
    return WorstClass(
        index=index,
        name=names[index],
        support=support[index],
        drop=drops[index].share,
        drop_ci95=drops[index].ci95 if independent else None,
        smallest_drop=drops[index].smallest if independent else None,
        compared=len(present),
    )
