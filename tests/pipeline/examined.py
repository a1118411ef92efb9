"""Details of a classifier and of other tasks, from drawn outputs, by the functions of the evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeq.blueprint import Limits, Slice, Task, parse_condition
from edgeq.evaluation import Details
from edgeq.evaluation.anomaly import anomaly_of
from edgeq.evaluation.classes import classes_of
from edgeq.evaluation.corruptions import Corruption
from edgeq.evaluation.edge_inputs import Edge, edge_figures
from edgeq.evaluation.multi_label import multi_label_of
from edgeq.evaluation.probabilities import probabilities_of
from edgeq.evaluation.regression import regression_of
from edgeq.evaluation.robustness import Robustness, figures_of, summary
from edgeq.evaluation.segmentation import segmentation_of
from edgeq.evaluation.slices import slice_figures

WORDS = ("silence", "unknown", "yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")


def classifier(names: Sequence[str] = WORDS, *, samples: int = 700, seed: int = 3) -> Details:
    """Return the details of a classifier whose variant has a little noise."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, len(names), samples)
    float_logits = random.normal(size=(samples, len(names)))
    float_logits[np.arange(samples), labels] += 5.0
    variant_logits = float_logits + random.normal(scale=0.7, size=float_logits.shape)
    right = (float_logits.argmax(axis=1) == labels, variant_logits.argmax(axis=1) == labels)
    part = Slice(name="night", where=parse_condition("lux < 10"), limits=Limits(accuracy_min=0.5))
    edges = [Edge.ZEROS, Edge.MAXIMUM, Edge.OUT_OF_RANGE]
    outputs = np.eye(len(edges), len(names))
    return Details(
        task=Task.CLASSIFICATION,
        task_reason="labels of one axis, outputs with a value a class",
        samples=samples,
        independent=True,
        seed=seed,
        classes=classes_of(float_logits, variant_logits, labels, names=names),
        probabilities=probabilities_of(float_logits, variant_logits, labels),
        slices=(slice_figures(part, random.random(samples) < 0.3, right=right, same=right[0] == right[1]),),
        robustness=robustness(labels[:200], len(names), random),
        edge_inputs=edge_figures(edges, [outputs], [np.roll(outputs, 1, axis=0)], classes=True),
        notes=("inputs were scaled to the range of the model",),
    )


def robustness(labels: np.ndarray, classes: int, random: np.random.Generator) -> Robustness:
    """Return figures that fall with the severity, in the variant a little more."""

    def answers(error: float) -> np.ndarray:
        wrong = random.random(len(labels)) < error
        return np.where(wrong, (labels + 1) % classes, labels)

    figures = [figures_of(None, 0, answers(0.03), answers(0.04), labels)]
    for kind in Corruption:
        for severity in (1, 3, 5):
            reference, variant = answers(0.03 + 0.04 * severity), answers(0.04 + 0.06 * severity)
            figures.append(figures_of(kind, severity, reference, variant, labels))
    return summary(figures, samples=len(labels), severities=(1, 3, 5), seed=3)


def other_tasks() -> Details:
    """Return details with all parts that a classifier does not have."""
    random = np.random.default_rng(5)
    truth = random.integers(0, 2, (80, 3))
    scores = np.clip(0.6 * truth + 0.4 * random.random(truth.shape), 0, 1)
    values = random.normal(size=(80, 2))
    places = random.integers(0, 4, (6, 8, 8))
    return Details(
        task=None,
        task_reason="",
        samples=80,
        independent=False,
        seed=5,
        multi_label=multi_label_of(scores, 1 - 0.9 * (1 - scores), truth, names=("cat", "dog", "owl")),
        regression=regression_of(values + 0.1, values + 0.2, values),
        anomaly=anomaly_of(scores[:, 0], scores[:, 1], truth[:, 0], score="the output"),
        segmentation=segmentation_of(places, np.roll(places, 1), places, classes=4),
    )
