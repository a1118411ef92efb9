"""Parse an agent's responses into frozen values; a device may send anything, so every field is checked.

Unknown fields are ignored: a newer agent may send more. The response as it arrived stays in `document`, which
`--json` shows unchanged. A response that only one call reads is declared beside that call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, model_validator

from edgeq.errors import AgentProtocolError

T = TypeVar("T")
R = TypeVar("R", bound="Response")

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, lt=2**63)]
# JSON has lists only; a frozen value holds a tuple.
Items = Annotated[tuple[T, ...], Strict(False)]

# What pydantic's error types mean to someone who reads the message.
_EXPECTED = {
    "missing": "a value",
    "string_type": "a string",
    "string_too_short": "a string that is not empty",
    "bool_type": "true or false",
    "int_type": "an integer",
    "float_type": "a number",
    "finite_number": "a finite number",
    "greater_than_equal": "a number of at least 0",
    "tuple_type": "a list",
    "mapping_type": "an object",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "string_pattern_mismatch": "a SHA-256 digest",
}


class Response(BaseModel):
    """A response, or a part of one.

    Attributes:
        verbs: the verbs of the agent that it is a response of; none for a part of one.
        document: the same as it arrived, with the fields that this version does not know.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    verbs: ClassVar[tuple[str, ...]] = ()

    document: Mapping[str, Any] = Field(default={}, repr=False, exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _keep_document(cls, body: Any) -> Any:
        return {**body, "document": body} if isinstance(body, Mapping) else body


def parse(kind: type[R], body: Mapping[str, Any], *, device: str, verb: str) -> R:
    """Return a response as a value of `kind`.

    Args:
        device, verb: for the message.

    Raises:
        AgentProtocolError: a field is missing or has the wrong type; names it.
    """
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in fault["loc"])
        raise AgentProtocolError(
            device,
            f"{verb}: {field}",
            expected=_EXPECTED.get(fault["type"]) or fault["msg"].removeprefix("Input should be "),
            got="nothing" if fault["type"] == "missing" else repr(fault["input"])[:80],
        ) from error


class Change(Response):
    """Whether a verb changed something."""

    verbs = ("split", "unstage")

    changed: bool


class MissingBlobs(Response):
    """The response of `missing`: blobs that a device lacks.

    Attributes:
        partial: those of which it holds a part, left by an interrupted upload.
    """

    verbs = ("missing",)

    missing: Items[Digest]
    partial: Items[Digest] = Field(validation_alias="begun")


class ReleaseCounter(Response):
    """The highest release counter that a device committed for a model."""

    counter: Count
    release: str | None


class TrustSummary(Response):
    """A device's trust store, as `status` reports it.

    Attributes:
        keys: ids of the keys whose signatures count.
        threshold: how many of them must have signed a release.
        counters: by model.
        problem: why the store cannot be read; the device then accepts no release.
        version, document_digest: of the trust document in force; 0 and None where there is none.
        expires_s: from then on the device admits no release, in seconds since 1970; None for never.
    """

    keys: Items[str]
    revoked: Items[str]
    threshold: Count
    counters: Mapping[str, ReleaseCounter]
    problem: str | None = None
    version: Count = 0
    document_digest: Annotated[str | None, Field(validation_alias="document_sha256")] = None
    expires_s: Count | None = None


class SplitStatus(Response):
    """The A/B split of a model; `problem` says why it cannot be read and is ignored by the device."""

    experiment: str | None = None
    problem: str | None = None


class RecorderTrouble(Response):
    """What kept the recorders of a model's runtimes from storing telemetry.

    Attributes:
        failures: steps that failed.
        restarts: how often a recorder's thread was started again.
        problem: why the last step did not store everything; empty when it did.
    """

    failures: Count = 0
    restarts: Count = 0
    problem: str = ""


class ModelStatus(Response):
    """What a device serves of one model.

    Attributes:
        current: the release that serves, or None.
        previous: the release that a rollback leads to, or None.
        runtime: the digest of the runtime that it runs on.
        proof: `golden` when its outputs were compared, `ran` when it was only seen to run.
        since_ns: when the state was entered, by the device's clock.
        reason: why it was rolled back, if it was.
        pins, releases: releases that are pinned, and all that are on the device.
        damaged: those of them of which a file is missing or damaged; a deploy of the release sends it again.
        staged: the releases that passed their checks and are not current.
        in_force: whether the split decides which release answers.
    """

    current: Digest | None = None
    previous: str | None = None
    state: str | None = None
    runtime: str | None = None
    proof: str | None = None
    since_ns: Count | None = None
    reason: str | None = None
    pins: Items[str] = ()
    releases: Items[str] = ()
    damaged: Items[str] = ()
    recorder: RecorderTrouble = RecorderTrouble()
    staged: Mapping[str, Any] = {}
    split: SplitStatus | None = None
    in_force: bool = False


class DeviceStatus(Response):
    """The response of `status`."""

    verbs = ("status",)

    models: Mapping[str, ModelStatus]
    free_bytes: Count = 0
    trust: TrustSummary | None = None

    def model(self, name: str) -> ModelStatus:
        """Return the status of one model; of a model that the device does not know, an empty one."""
        return self.models.get(name) or ModelStatus()


class HealthReport(Response):
    """What the device measured when it checked a release; `proof` as in `ModelStatus`."""

    proof: str | None = None


class Activation(Response):
    """The response of `activate`, `stage` and `rollback`.

    Attributes:
        release: the release that serves now; for `stage` the one that was staged.
        previous: the release that served before, if any.
        state: the state of the model, as in docs/deploy.md.
    """

    verbs = ("activate", "stage", "rollback")

    release: str
    changed: bool
    previous: str | None = None
    state: str | None = None
    health: HealthReport = HealthReport()


class UploadedBlob(Response):
    """One blob of an upload; `stored` is False when the device had it already."""

    sha256: str
    stored: bool


class UploadResult(Response):
    """The response of `upload`.

    Attributes:
        resumed_bytes: what an earlier, interrupted upload had brought.
    """

    verbs = ("upload",)

    blobs: Items[UploadedBlob]
    resumed_bytes: Count
