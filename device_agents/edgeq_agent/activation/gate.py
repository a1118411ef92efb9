"""The gate before a release may serve or become a candidate: trust, device, space, runtime and blobs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from edgeq_agent.activation.states import ModelState
from edgeq_agent.blobs import blob_store
from edgeq_agent.calls.fields import Fields
from edgeq_agent.errors import BAD_REQUEST, OTHER_DEVICE, UNSUPPORTED, AgentError, no_space
from edgeq_agent.platforms import identity
from edgeq_agent.platforms import registry as platforms
from edgeq_agent.releases import manifest as manifests
from edgeq_agent.releases import release_store
from edgeq_agent.releases.manifest import Manifest
from edgeq_agent.runtimes import registry
from edgeq_agent.runtimes.base import RuntimeBackend
from edgeq_agent.storage import scratch
from edgeq_agent.storage.home import Home, free_bytes
from edgeq_agent.trust import trust_store


@dataclass(frozen=True)
class GateRequest:
    """The fields of a request to let a release pass.

    Attributes:
        runtime: digest of the runtime to check it with.
        kind: the inventory's kind of this device; counts only where the board itself is a plain Linux.
        ignore_attempts: the wire's `retry`: pass also after too many failed attempts.
        timeout_s: deadline of the health check.
        fields: the whole request, with the manifest and its signatures.
    """

    model: str
    release: str
    runtime: str
    kind: str | None
    ignore_attempts: bool
    timeout_s: float
    fields: Fields

    @classmethod
    def parse(cls, fields: Fields) -> GateRequest:
        """Return the fields of a request.

        Raises:
            AgentError: EQ512, a field is not valid.
        """
        return cls(
            model=fields.model_name(),
            release=fields.sha256("release"),
            runtime=fields.sha256("runtime"),
            kind=fields.text("kind") if "kind" in fields else None,
            ignore_attempts=fields.flag("retry"),
            timeout_s=fields.timeout_s(),
            fields=fields,
        )


class Admission(NamedTuple):
    """A release that passed the first checks, and the ids of the trusted keys that signed it."""

    manifest: Manifest
    signers: tuple[str, ...]


def admit(home: Home, request: GateRequest) -> Admission:
    """Check signatures and release counter, and parse the manifest (lock held).

    Raises:
        AgentError: EQ505 the release is not the manifest's digest, EQ512 the manifest is not valid or of
            another model, EQ530 to EQ537 as `trust_store.admit`.
    """
    signers = trust_store.admit(home, trust_store.parse_release(request.fields))
    manifest = manifests.parse(request.fields.object("manifest").json(), request.release)
    if manifest.model != request.model:
        raise AgentError(BAD_REQUEST, "manifest.model", expected=request.model, got=manifest.model)
    return Admission(manifest, tuple(signers))


def check(home: Home, state: ModelState, manifest: Manifest, request: GateRequest) -> RuntimeBackend:
    """Check everything that does not need the model to run, and return the runtime (lock held).

    Raises:
        AgentError: EQ501 space, EQ503 kind of device or runtime, EQ509 a blob is missing, EQ520 too many
            attempts, EQ539 the release is for other devices.
    """
    attempts = state.record.attempts
    if request.ignore_attempts:
        attempts = attempts.without(manifest.release)
    attempts.check_limit(manifest.model, manifest.release, state.record.reason)
    scratch.sweep(home)
    _check_device(home, manifest, request.kind)
    backend = registry.need(home, request.runtime)
    release_store.check_blobs(home, manifest)
    return backend


def _check_device(home: Home, manifest: Manifest, inventory_kind: str | None) -> None:
    kind = str(platforms.kind_of())
    if kind == str(platforms.DeviceKind.LINUX) and inventory_kind is not None:
        kind = inventory_kind
    if manifest.kinds and kind not in manifest.kinds:
        raise AgentError(
            UNSUPPORTED,
            manifest.model,
            "made for another kind of device",
            expected=" or ".join(manifest.kinds),
            got=kind,
            hint="make a bundle for this kind of device",
        )
    own_id = identity.device_id(home)
    if manifest.devices and own_id not in manifest.devices:
        raise AgentError(
            OTHER_DEVICE,
            manifest.model,
            "made for other devices",
            expected="one of " + ", ".join(manifest.devices[:4]) + (", ..." if manifest.devices[4:] else ""),
            got=own_id,
            hint="make a bundle for this device too: `edgeq bundle MODEL -o FILE --for DEVICE`",
        )
    free = free_bytes(home.root)
    if free < manifest.free_bytes:
        raise no_space(manifest.model, manifest.free_bytes, free)
    # The release's folder, its links and its manifest.
    blob_store.check_space(home, manifest.model, 0, len(manifest.files) + 2)
