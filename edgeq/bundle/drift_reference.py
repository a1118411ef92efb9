"""The drift reference as a value: histograms of a release's inputs and outputs on known data."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, model_validator

from edgeq.errors import BundleError
from edgeq.store import Store
from edgeq_agent.telemetry.window import Window

T = TypeVar("T")

# JSON has lists only; a frozen value holds a tuple.
Items = Annotated[tuple[T, ...], Strict(False)]
Count = Annotated[int, Field(ge=0, le=2**63 - 1)]


class _Part(BaseModel):
    # A later version may add fields; unknown ones are ignored.
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class Histogram(_Part):
    """Counts by bin.

    Attributes:
        edges: ascending, bins + 1 of them; a bin is [lower, upper).
        counts: one for each bin.
    """

    edges: Items[float]
    counts: Items[Count]

    @model_validator(mode="after")
    def _is_a_histogram(self) -> Self:
        ascending = all(low <= high for low, high in itertools.pairwise(self.edges))
        if not self.counts or len(self.edges) != len(self.counts) + 1:
            raise ValueError("expected counts, and one edge more")
        if not ascending or not all(map(math.isfinite, self.edges)):
            raise ValueError("edges must be finite and ascending")
        return self


class InputReference(_Part):
    """One input: a histogram of each channel's mean over a sample."""

    name: str
    channels: Items[Histogram]


class OutputReference(_Part):
    """The first output.

    Attributes:
        classes: how many there are.
        predicted: samples by predicted class.
        confidence: of the largest class probability of each sample.
        confidence_from: `probabilities`, or `logits` that a softmax is applied to first.
    """

    classes: Count | None = None
    predicted: Items[Count]
    confidence: Histogram
    confidence_from: str | None = None


class DriftReference(_Part):
    """A release's drift reference (`edgeq.reference/1`).

    Attributes:
        statistic: what the histograms of inputs count.
    """

    # pydantic's BaseModel has a method `schema`; the alias keeps the name in the file.
    schema_name: Literal["edgeq.reference/1"] = Field(alias="schema")
    statistic: str | None = None
    inputs: Items[InputReference]
    output: OutputReference

    def to_json(self) -> dict[str, Any]:
        """Return the document, as a bundle and the store keep it."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def parse_reference(document: Mapping[str, Any] | bytes, *, subject: str) -> DriftReference:
    """Parse and check a drift reference.

    Args:
        document: the file's bytes, or its JSON object.
        subject: where it is, for the message.

    Raises:
        BundleError: it does not follow the schema.
    """
    hint = "create the bundle again with `edgeq bundle`; a newer edgeq may have written this one"
    try:
        body = json.loads(document) if isinstance(document, bytes) else document
        return DriftReference.model_validate(body)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise BundleError(subject, f"drift reference: `{where}`: {fault['msg']}", hint=hint) from error
    except (ValueError, RecursionError) as error:
        raise BundleError(subject, "its drift reference is not JSON", hint=hint) from error


def mismatch(reference: DriftReference, window: Window) -> str | None:
    """Return why a window cannot be of the release with this reference, or None.

    A window without any histogram of inputs matches: it says nothing about them.
    """
    if window.inputs:
        names = [each.name for each in window.inputs]
        if names != [each.name for each in reference.inputs]:
            return "its inputs are not those of the release's drift reference"
        for got, known in zip(window.inputs, reference.inputs, strict=True):
            if [len(channel) for channel in got.channels] != [len(each.counts) for each in known.channels]:
                return f"input {got.name}: its bins are not those of the release's drift reference"
    bins = len(reference.output.confidence.counts)
    if len(window.output.confidence) != bins:
        return f"confidence: expected {bins} bins, got {len(window.output.confidence)}"
    classes = len(reference.output.predicted)
    if len(window.output.predicted) != classes:
        return f"predicted class: expected {classes} bins, got {len(window.output.predicted)}"
    return None


def stored_reference(store: Store, release: str) -> DriftReference | None:
    """Return the drift reference of a release in the store; None where the store has none.

    Raises:
        BundleError: it does not follow the schema.
    """
    known = store.release(release)
    if known is None or known.reference is None:
        return None
    return parse_reference(known.reference, subject=f"release {release[:12]} in the store")
