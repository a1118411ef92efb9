"""The errors of the runtime SDK: one tree; each has its code, what was expected and what was found.

InferenceError
|- InputMismatch    EQ540  (also a ValueError) an input does not match the model's
|- InputNotFinite   EQ541  (also a ValueError) NaN or infinity in an input
|- DeadlineMissed   EQ542  the answer came late, and the runtime is strict
|- RuntimeClosed    EQ543  the runtime was closed
|- ReleaseRefused   EQ544  a release does not load here or fails its golden inputs
|- InvokeFailed     EQ545  the runtime fails on an input
|- SplitUnusable    EQ546  an A/B split is not valid or names releases that are not there (split.ab_split)
|- ShadowUnusable   EQ547  the shadow does not fit the model
|- StorageFailed    EQ500  telemetry or counters could not be stored; they stay in memory until they can
|- AddressRefused   EQ548  `serve` listens only on loopback or a unix socket
|- NoSuchRelease    EQ549  a call names a release that does not serve
`- FeedbackRefused  EQ550  the ticket of the feedback is not open
"""

from __future__ import annotations

from edgeq_agent.errors import InferenceError as InferenceError
from edgeq_agent.split.ab_split import SplitUnusable as SplitUnusable


class InputMismatch(InferenceError, ValueError):
    """An input is missing, unknown, or differs in shape or type from the model's."""

    kind_code = "EQ540"
    kind = "input_mismatch"


class InputNotFinite(InferenceError, ValueError):
    """An input holds NaN or infinity, so its answer would be meaningless."""

    kind_code = "EQ541"
    kind = "input_not_finite"


class DeadlineMissed(InferenceError):
    """The answer was computed, but late."""

    kind_code = "EQ542"
    kind = "deadline"


class RuntimeClosed(InferenceError):
    """A call came after `close()`."""

    kind_code = "EQ543"
    kind = "closed"


class ReleaseRefused(InferenceError):
    """This process cannot serve a release; the cause is chained."""

    kind_code = "EQ544"
    kind = "release"


class InvokeFailed(InferenceError):
    """The runtime failed during an inference."""

    kind_code = "EQ545"
    kind = "invoke"


class ShadowUnusable(InferenceError):
    """The shadow's inputs or outputs differ from the model's, or it cannot be loaded."""

    kind_code = "EQ547"
    kind = "shadow"


class StorageFailed(InferenceError):
    """Telemetry or counters are not on the disk yet."""

    kind_code = "EQ500"
    kind = "storage"


class AddressRefused(InferenceError):
    """`serve` does not listen on this address."""

    kind_code = "EQ548"
    kind = "address"


class NoSuchRelease(InferenceError):
    """A call names a release that does not serve, or no longer."""

    kind_code = "EQ549"
    kind = "no_release"


class FeedbackRefused(InferenceError):
    """A ticket is not open: redeemed already, expired, or not of this process."""

    kind_code = "EQ550"
    kind = "feedback"


class SessionsFull(InferenceError):
    """As many sessions are open as may be."""

    kind_code = "EQ562"
    kind = "sessions"


class SessionEnded(InferenceError):
    """A call belongs to a session that has ended, or never began."""

    kind_code = "EQ563"
    kind = "session"
