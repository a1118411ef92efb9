"""The errors of the runtime SDK: one tree, each with its code, what was expected and what was got.

InferenceError
|- InputMismatch    EQ540  (also a ValueError) the caller's input is not the model's
|- InputNotFinite   EQ541  (also a ValueError) NaN or infinity in an input
|- DeadlineMissed   EQ542  the answer came late, and the runtime is strict
|- RuntimeClosed    EQ543  the runtime was closed
|- ReleaseRefused   EQ544  a release does not load here, or fails its golden inputs
|- InvokeFailed     EQ545  the model gives up on an input
|- SplitUnusable    EQ546  an A/B split names what is not there
|- ShadowUnusable   EQ547  the shadow cannot take the model's inputs
|- StorageFailed    EQ500  telemetry or counters could not be stored; they are kept in memory meanwhile
|- AddressRefused   EQ548  `serve` listens on loopback or a unix socket and nowhere else
|- NoSuchRelease    EQ549  the release that a call names does not serve
`- FeedbackRefused  EQ550  feedback on an answer that does not wait for any
"""

from __future__ import annotations

from edgeq_agent.errors import InferenceError as InferenceError
from edgeq_agent.split.ab_split import SplitUnusable as SplitUnusable


class InputMismatch(InferenceError, ValueError):
    """An input is missing, unknown, or has another shape or type than the model's."""

    kind_code = "EQ540"
    kind = "input_mismatch"


class InputNotFinite(InferenceError, ValueError):
    """An input holds NaN or infinity: no answer to it means anything."""

    kind_code = "EQ541"
    kind = "input_not_finite"


class DeadlineMissed(InferenceError):
    """The answer is there, but late."""

    kind_code = "EQ542"
    kind = "deadline"


class RuntimeClosed(InferenceError):
    """A call came after `close()`."""

    kind_code = "EQ543"
    kind = "closed"


class ReleaseRefused(InferenceError):
    """A release that this process cannot serve; its cause is chained."""

    kind_code = "EQ544"
    kind = "release"


class InvokeFailed(InferenceError):
    """The model gave up in the middle of an inference."""

    kind_code = "EQ545"
    kind = "invoke"


class ShadowUnusable(InferenceError):
    """A shadow that does not take what the model takes."""

    kind_code = "EQ547"
    kind = "shadow"


class StorageFailed(InferenceError):
    """Telemetry that is not on the disk yet."""

    kind_code = "EQ500"
    kind = "storage"


class AddressRefused(InferenceError):
    """An address that `serve` does not listen on."""

    kind_code = "EQ548"
    kind = "address"


class NoSuchRelease(InferenceError):
    """A call names a release that does not serve (any more)."""

    kind_code = "EQ549"
    kind = "no_release"


class FeedbackRefused(InferenceError):
    """Feedback on an answer that does not wait for any: told already, too old, or not of this process."""

    kind_code = "EQ550"
    kind = "feedback"
