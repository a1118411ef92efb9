"""Readers of foreign input: what each reads, examples to start from, and the errors that it may raise."""

from __future__ import annotations

import importlib
import io
import json
import os
import pkgutil
import socket
import zipfile
import zlib
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import edgeq
from edgeq.blueprint.parse import load_blueprint
from edgeq.bundle.archive import parse_bundle
from edgeq.bundle.drift_reference import parse_reference
from edgeq.bundle.keys import new_key
from edgeq.bundle.manifest import parse_manifest
from edgeq.bundle.provenance import provenance_files
from edgeq.bundle.provenance_check import parse_provenance
from edgeq.bundle.signatures import from_document
from edgeq.bundle.trust_document import Amendment, first_document, next_document, parse_signed
from edgeq.conversion.lineage import FileRecord
from edgeq.errors import BundleError, DataError, EdgeqError
from edgeq.fleet.agent.errors import from_agent
from edgeq.fleet.agent.payloads import load_samples
from edgeq.fleet.hosts.read import read_hosts
from edgeq.fleet.inventory import Inventory
from edgeq.fleet.responses import Response, parse
from edgeq.fleet.ssh.config import load
from edgeq.fleet.ssh.known_hosts import known_keys
from edgeq.fleet.ssh.route import resolve_route
from edgeq.testing.tiny_bundle import write_tiny_bundle
from edgeq_agent import wire
from edgeq_agent.blobs.upload_frames import Frames, parse_offers
from edgeq_agent.calls.fields import Fields
from edgeq_agent.calls.stdin import Stdin
from edgeq_agent.errors import AgentError
from edgeq_agent.http.body import split
from edgeq_agent.http.errors import Refused
from edgeq_agent.http.head import read_head
from edgeq_agent.http.requests import parse_feedback, parse_infer
from edgeq_agent.inference import state
from edgeq_agent.inference.npz import open_npz
from edgeq_agent.inference.tiny_model import TINY_MODEL
from edgeq_agent.releases import manifest as device_manifest
from edgeq_agent.telemetry import window
from edgeq_agent.trust import trust_succession
from tests.agent.served import Served

WINDOWS = Path(__file__).resolve().parents[1] / "telemetry" / "window-v1.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One reader.

    Attributes:
        read: takes bytes, and returns or raises one of `errors`.
        examples: inputs that it accepts, to be damaged.
        is_json: whether its input is JSON, so that values in it are replaced too.
        largest_bytes: the most memory that it may use for an input of a few kilobytes.
        everyday: whether the everyday tests read some inputs, too.
    """

    read: Callable[[bytes], object]
    errors: tuple[type[Exception], ...]
    examples: Callable[[], list[bytes]]
    is_json: bool = True
    largest_bytes: int = 8 << 20
    everyday: bool = True


@cache
def bundle() -> bytes:
    """Return the bytes of a bundle."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.eqb"
        write_tiny_bundle(path)
        return path.read_bytes()


@cache
def _manifest() -> dict[str, Any]:
    return dict(parse_bundle(bundle(), subject="a.eqb").manifest)


def _deflated(data: bytes) -> bytes:
    """Return the bundle packed again, as other programs do."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as archive,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in archive.namelist():
            target.writestr(zipfile.ZipInfo(name), archive.read(name), zipfile.ZIP_DEFLATED)
    return out.getvalue()


def _member(name: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(bundle())) as archive:
        return archive.read(name)


class NotJson(Exception):
    """The reader before this target would have refused the input."""


def _json(data: bytes) -> Any:
    """Parse what another reader has parsed before the target gets it: JSON that can be written again."""
    try:
        document = json.loads(data)
        wire.canonical(document)
    except (ValueError, RecursionError) as error:
        raise NotJson from error
    return document


def _read_manifest(data: bytes) -> None:
    """Read a manifest as the host does, then as the device does: it must accept what the host accepts."""
    document = _json(data)
    manifest = parse_manifest(document, subject="a.eqb")
    if manifest.counter == 0:  # from before there were counters; devices refuse it
        return
    try:
        device_manifest.parse(document, wire.digest(document))
    except AgentError as error:
        raise AssertionError(f"the host accepts what the device refuses: {error}") from error


def _read_trust_document(data: bytes) -> None:
    """Read a signed trust document as the host does, then as the device does, which must accept it, too."""
    entry = _json(data)
    parse_signed(entry, subject="trust.json")
    try:
        trust_succession.parse(Fields({"d": entry}), "d")
    except AgentError as error:
        raise AssertionError(f"the host accepts what the device refuses: {error}") from error


def _read_device_trust_document(data: bytes) -> None:
    trust_succession.parse(Fields({"d": _json(data)}), "d")


@cache
def _trust_document() -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        root, release = (new_key(Path(folder), name) for name in ("root", "release"))
    roles = Amendment(add_root=[root.public], add_release=[release.public], expires_s=2**38)
    reset = Amendment(reset_counters={"kws": 3}, void={"kws": ["a" * 64]})
    return next_document(first_document(roles).document, reset).signed_by([root]).to_request()


def _read_device_manifest(data: bytes) -> None:
    document = Fields(_json(data), expected="an object").json()
    device_manifest.parse(document, wire.digest(document))


def _read_answer(data: bytes) -> None:
    """Read an answer of an agent: its lines, and its result as the response of every verb."""
    for number, line in enumerate(wire.split_lines([data[:40], data[40:]])):
        message = wire.parse(line)
        if number == 0:
            wire.check_hello(message)
        if message["event"] == "error" and isinstance(message.get("error"), dict):
            raise from_agent("pi-1", message["error"])
        for kind in _responses():
            if isinstance(message.get("result"), dict):
                _accepts(kind, message["result"])


def _accepts(kind: type[Response], body: dict[str, Any]) -> None:
    try:
        parse(kind, body, device="pi-1", verb=kind.verbs[0])
    except EdgeqError:
        return  # the other verbs are tried too


@cache
def _responses() -> tuple[type[Response], ...]:
    for module in pkgutil.walk_packages(edgeq.__path__, "edgeq."):
        if module.name.startswith(("edgeq.fleet", "edgeq.collector", "edgeq.benchmark", "edgeq.experiment")):
            importlib.import_module(module.name)

    def below(kind: type[Response]) -> Iterable[type[Response]]:
        for each in kind.__subclasses__():
            yield each
            yield from below(each)

    return tuple(kind for kind in below(Response) if kind.verbs)


def _windows() -> list[bytes]:
    lines = WINDOWS.read_bytes().splitlines()[:4]
    return [wire.dump(wire.window(json.loads(line)["window"])) for line in lines]


def _read_infer(data: bytes) -> None:
    parse_infer(split({}, data))


def _read_binary_infer(data: bytes) -> None:
    parse_infer(split({"inference-header-content-length": str(data.rfind(b"}") + 1)}, data))


def _read_feedback(data: bytes) -> None:
    parse_feedback(split({}, data).fields)


def _read_upload(data: bytes) -> None:
    """Read an upload as the device does: a line with the offers, then the frames."""
    line, _, frames = data.partition(b"\n")
    offers = parse_offers(Fields(_json(line), expected="an object"))
    with open(os.devnull, "rb") as end:
        for frame in Frames(Stdin(end.fileno(), early=frames), offers):
            if frame.packing != wire.DONE:
                assert len(frame.unpack()) == frame.length


def _upload() -> bytes:
    """Return an upload of two blobs: two chunks, the second one compressed, and one chunk."""
    chunk = wire.MIN_CHUNK_BYTES
    sizes = {"a" * 64: chunk + 500, "b" * 64: 7}
    offers = [{"sha256": sha, "size_bytes": size, "chunk_bytes": chunk} for sha, size in sizes.items()]
    packed = zlib.compress(bytes(500))
    frames = [
        (wire.AS_IT_IS, 0, 0, bytes(chunk)),
        (wire.ZLIB, 0, 1, packed),
        (wire.AS_IT_IS, 1, 0, b"7 bytes"),
        (wire.DONE, 0, 0, b""),
        (wire.DONE, 1, 0, b""),
    ]
    framed = [
        wire.frame_header(packing, blob, chunk, len(content)) + content
        for packing, blob, chunk, content in frames
    ]
    return json.dumps({"blobs": offers}).encode() + b"\n" + b"".join(framed)


def _npz() -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, input_0=np.arange(8, dtype=np.float32).reshape(2, 4))
    return out.getvalue()


def _in_file(read: Callable[[Path], object], name: str = "a.npz") -> Callable[[bytes], object]:
    """Return a reader of bytes for one of files."""

    def read_bytes(data: bytes) -> object:
        with TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(data)
            return read(path)

    return read_bytes


def _read_head(data: bytes) -> None:
    read_head(io.BufferedReader(io.BytesIO(data)))


INFER = {
    "id": "1",
    "inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.0]}],
    "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
    "parameters": {
        "key": "k",
        "raw": True,
        "deadline_s": 1.5,
        "ticket": False,
        "sequence_id": 7,
        "sequence_start": True,
        "sequence_end": False,
    },
}
BINARY = {
    "inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}]
}
ANSWER = b"".join(
    map(
        wire.dump,
        [
            wire.hello("0.1.0"),
            wire.progress("verified", blob="a"),
            wire.result({"device_id": "d", "pending": 0, "release": "a" * 64, "samples": 1}),
        ],
    )
)
FAILURE = wire.dump(wire.hello("0.1.0")) + wire.dump(wire.error("EQ510", "kws", "no such model", hint="x"))
HEAD = (
    b"POST /v2/models/x/infer?a=b HTTP/1.1\r\nHost: localhost:80\r\nContent-Type: application/json\r\n"
    b"Content-Length: 2\r\nOrigin: http://localhost:80\r\nAccept: */*\r\nConnection: close\r\n\r\n{}"
)
DIGESTS = {"model.tflite": "a" * 64, "golden.npz": "b" * 64}
SBOM, STATEMENT = provenance_files(
    model="kws",
    variant="int8",
    digests=DIGESTS,
    data=FileRecord(path="test.npz", sha256="c" * 64, size_bytes=1),
    blueprint="d" * 64,
    made_from=(),
).values()
REFUSED = (Refused, AgentError)
TARGETS = {
    "bundle": Target(
        read=lambda data: parse_bundle(data, subject="a.eqb"),
        errors=(BundleError,),
        examples=lambda: [bundle(), _deflated(bundle())],
        is_json=False,
    ),
    "manifest": Target(
        read=_read_manifest, errors=(BundleError, NotJson), examples=lambda: [wire.canonical(_manifest())]
    ),
    "manifest on the device": Target(
        read=_read_device_manifest,
        errors=(AgentError, NotJson),
        examples=lambda: [wire.canonical(_manifest())],
    ),
    "signatures": Target(
        read=lambda data: from_document(data, _manifest(), subject="a.eqb"),
        errors=(BundleError,),
        examples=lambda: [_member("signatures.json")],
    ),
    "trust document": Target(
        read=_read_trust_document,
        errors=(BundleError, NotJson),
        examples=lambda: [wire.canonical(_trust_document())],
    ),
    "trust document on the device": Target(
        read=_read_device_trust_document,
        errors=(AgentError, NotJson),
        examples=lambda: [wire.canonical(_trust_document())],
    ),
    "provenance": Target(
        read=lambda data: parse_provenance(SBOM, data, digests=DIGESTS, subject="a.eqb"),
        errors=(BundleError,),
        examples=lambda: [STATEMENT],
    ),
    "SBOM": Target(
        read=lambda data: parse_provenance(data, STATEMENT, digests=DIGESTS, subject="a.eqb"),
        errors=(BundleError,),
        examples=lambda: [SBOM],
    ),
    "drift reference": Target(
        read=lambda data: parse_reference(data, subject="a.eqb"),
        errors=(BundleError,),
        examples=lambda: [_member("files/reference.json")],
    ),
    "window": Target(
        read=lambda data: window.to_json(window.parse(wire.parse(data).get("window"))),
        errors=(window.WindowError, wire.WireError),
        examples=_windows,
        largest_bytes=32 << 20,
    ),
    "agent's answer": Target(
        read=_read_answer,
        errors=(wire.WireError, EdgeqError),
        examples=lambda: [ANSWER, FAILURE],
        largest_bytes=64 << 20,
    ),
    "upload": Target(
        read=_read_upload, errors=(AgentError, NotJson), examples=lambda: [_upload()], is_json=False
    ),
    "arrays on the device": Target(
        read=_in_file(lambda path: open_npz(str(path), "payload")),
        errors=(AgentError,),
        examples=lambda: [_npz()],
        is_json=False,
    ),
    "state of a model on the device": Target(
        read=_in_file(lambda path: state.read(str(path))),
        errors=(AgentError,),
        examples=lambda: [TINY_MODEL],
        is_json=False,
    ),
    "samples": Target(
        read=_in_file(load_samples), errors=(DataError,), examples=lambda: [_npz()], is_json=False
    ),
    "head of a request": Target(read=_read_head, errors=(Refused,), examples=lambda: [HEAD], is_json=False),
    "inference request": Target(
        read=_read_infer, errors=REFUSED, examples=lambda: [json.dumps(INFER).encode()]
    ),
    "binary inference request": Target(
        read=_read_binary_infer,
        errors=REFUSED,
        examples=lambda: [json.dumps(BINARY).encode() + bytes(8)],
    ),
    "feedback": Target(
        read=_read_feedback, errors=REFUSED, examples=lambda: [b'{"ticket":"a","correct":true}']
    ),
}


def _text_target(name: str, read: Callable[[Path], object], *examples: bytes) -> Target:
    """Return the target of a file that a user writes, under the name that it has."""
    return Target(
        read=_in_file(read, name),
        errors=(EdgeqError,),
        examples=lambda: list(examples),
        is_json=False,
        largest_bytes=64 << 20,
        everyday=False,
    )


def _look_up(path: Path) -> None:
    config = load(path)
    for host in (*config.aliases, "pi", "pi-1"):
        config.lookup(host)
    resolve_route(name="pi", host="pi", port=22, user="u", ssh_config=path)


def _read_blueprint(path: Path) -> None:
    for name in ("digits.keras", "calibration.npz", "evaluation.npz", "training.npz"):
        path.with_name(name).touch()
    load_blueprint(path)


HOST_KEY = b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE5sUdW9bdPyJYwMmSU9bJ5pFfV0yJ9oC6lFqvN6VmXK"
BLUEPRINT = (
    (Path(__file__).parents[2] / "docs" / "blueprint.md").read_bytes().split(b"```toml\n")[1].split(b"```")[0]
)
TARGETS |= {
    "inventory": _text_target(
        "devices.toml",
        lambda path: Inventory.load(path.parent),
        b"""[devices.pi]
host = "h"
port = 22
user = "u"
host_key = "%b"
identity = "~/.ssh/id"
jump = "a@b:22,c"
jump_host_key = "%b,%b"
transport = "openssh"
[devices.pi.labels]
site = "lab"
"""
        % (HOST_KEY, HOST_KEY, HOST_KEY),
    ),
    "CSV of hosts": _text_target(
        "hosts.csv",
        lambda path: read_hosts(str(path)),
        b"name,host,user,port,labels,label:x,kind,identity\npi,pi@10.0.0.1:22,u,22,a=b;c=d,1,linux,~/k\n",
    ),
    "INI inventory of hosts": _text_target(
        "hosts.ini",
        lambda path: read_hosts(str(path)),
        b"[gw]\nh1 ansible_host=10.0.0.1 ansible_port=22 ansible_user=pi\npi[01:20][1:9] ansible_host=x\n"
        b"[gw:vars]\nansible_ssh_common_args='-o ProxyJump=a@b'\n[every:children]\ngw\n",
    ),
    "YAML inventory of hosts": _text_target(
        "hosts.yml",
        lambda path: read_hosts(str(path)),
        b"all:\n  children:\n    gw:\n      hosts:\n        pi-1: {ansible_host: 10.0.0.1, ansible_port: 2}\n"
        b"        pi-[2:4]:\n      vars: &v\n        ansible_user: pi\n    other:\n      vars: *v\n",
    ),
    "ssh configuration": _text_target(
        "config",
        _look_up,
        b"Include x*\nHost pi pi-* !pi-3\n\tHostName 10.0.0.7\n\tPort=22\n  IdentityFile ~/.ssh/%h\n"
        b"  ProxyJump a@[::1]:22,b\nMatch host pi,x !user root localuser *\n  UserKnownHostsFile ~/a ~/b\n",
    ),
    "known_hosts": _text_target(
        "known_hosts",
        lambda path: known_keys("10.0.0.7", 2222, [path]),
        b"pi,[10.0.0.*]:2222 %b c\n@revoked * ssh-rsa AAAA\n|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|"
        b"3988QV0VE8wmZL7suNrYQLITLCg= %b\n@cert-authority *.x %b\n" % (HOST_KEY, HOST_KEY, HOST_KEY),
    ),
    "blueprint": _text_target("blueprint.toml", _read_blueprint, BLUEPRINT),
}


def status_of(server: Served, data: bytes) -> int | None:
    """Send bytes to a server; return the status of its first response, or None where it just disconnects."""
    with closing(server.connect()) as link:
        link.sendall(data)
        link.shutdown(socket.SHUT_WR)
        received = link.recv(65536)
    if not received:
        return None
    assert received.startswith(b"HTTP/1.1 ")
    return int(received.split()[1])
