"""Provenance of a release: its documents follow their schemas, are about this bundle, and are signed."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.bundle.archive import entry_of, read_bundle, write_bundle
from edgeq.bundle.keys import workspace_key
from edgeq.bundle.make import make_bundle
from edgeq.bundle.provenance import SBOM_FILE, STATEMENT_FILE, materials_of, provenance_files
from edgeq.cli import main
from edgeq.conversion.lineage import FileRecord, Lineage
from edgeq.errors import BundleAltered, BundleError
from edgeq.store import Store
from edgeq.testing.tiny_bundle import MODEL, write_tiny_bundle

DIGESTS = {"model.tflite": hashlib.sha256(MODEL).hexdigest(), "golden.npz": "b" * 64}
NAMES = st.text(max_size=12)
VERSIONS = st.text("0123456789.+abc", min_size=1, max_size=9)
SHA256 = st.text("0123456789abcdef", min_size=64, max_size=64)


def record(name: str, sha256: str = "c" * 64) -> FileRecord:
    return FileRecord(path=f"/srv/secret/{name}", sha256=sha256, size_bytes=1)


def lineage(output: str, source: str, **more: Any) -> Lineage:
    settings: dict[str, Any] = {
        "output": record("out", output),
        "source": record("model.keras", source),
        "data": {"calibration": record("calibration.npz", "d" * 64)},
        "recipe": {"schema": "edgeq.recipe/1", "scheme": "int8", "shapes": (("x", (1, 4)),), "seed": 0},
        "recipe_sha256": "e" * 64,
        "seed": 0,
        "backend": "litert",
        "tools": {"edgeq": "0.0.1", "litert-quantizer": "0.11.0", "numpy": np.__version__},
        "environment": {"python": "3.11.2", "machine": "x86_64"},
    }
    return Lineage(**{**settings, **more})


def documents(**more: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    settings: dict[str, Any] = {
        "model": "kws", "variant": "int8", "digests": DIGESTS, "data": record("test.npz"),
        "blueprint": "f" * 64, "made_from": [lineage(DIGESTS["model.tflite"], "1" * 64)],
    }  # fmt: skip
    files = provenance_files(**{**settings, **more})
    return json.loads(files[SBOM_FILE]), json.loads(files[STATEMENT_FILE])


def schema_problem(sbom: dict[str, Any]) -> object:
    """Return what CycloneDX's own schema refuses, or None."""
    reason = "cyclonedx-python-lib[json-validation] is not installed"
    schema = pytest.importorskip("cyclonedx.schema", reason=reason)
    validation = pytest.importorskip("cyclonedx.validation.json", reason=reason)
    validator = validation.JsonStrictValidator(schema.SchemaVersion.V1_6)
    return validator.validate_str(json.dumps(sbom))


@pytest.mark.slow
def test_the_sbom_follows_the_schema_and_names_what_the_model_was_made_of() -> None:
    sbom, _ = documents()
    assert schema_problem(sbom) is None
    assert schema_problem({**sbom, "components": [{"type": "none"}]}) is not None
    named = {component["name"]: component for component in sbom["components"]}
    assert {"model.keras", "calibration.npz", "test.npz", "blueprint", "litert-quantizer"} <= set(named)
    assert named["litert-quantizer"]["purl"] == "pkg:pypi/litert-quantizer@0.11.0"
    # Of a library that is installed in that version, the digest of its files is known.
    assert [one["name"] for one in named["numpy"]["properties"]] == ["edgeq:files-sha256"]
    references = [component["bom-ref"] for component in sbom["components"]]
    assert sorted(references) == sbom["dependencies"][0]["dependsOn"]
    assert len(set(references)) == len(references)


def test_the_statement_is_about_the_files_and_has_the_recipe_and_the_materials() -> None:
    earlier = lineage("1" * 64, "2" * 64, data={"training": record("train.npz", "3" * 64)})
    _, statement = documents(made_from=[lineage(DIGESTS["model.tflite"], "1" * 64), earlier])
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert {one["name"]: one["digest"]["sha256"] for one in statement["subject"]} == DIGESTS
    build = statement["predicate"]["buildDefinition"]
    steps = build["externalParameters"]["steps"]
    assert [step["output_sha256"] for step in steps] == ["1" * 64, DIGESTS["model.tflite"]]
    assert steps[1]["recipe"]["scheme"] == "int8"
    roles = {(one.role, one.sha256) for one in materials_of(statement)}
    assert {("source", "1" * 64), ("source", "2" * 64), ("training", "3" * 64)} < roles
    _, compiled = documents(compiled_from=record("int8.tflite", "9" * 64))
    assert ("compiled-from", "9" * 64) in {(one.role, one.sha256) for one in materials_of(compiled)}
    assert "secret" not in json.dumps(documents())  # no folder of the publisher


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    tools=st.dictionaries(st.text("abcXYZ-_.09", min_size=1, max_size=9), VERSIONS, max_size=4),
    name=NAMES,
    digest=SHA256,
)
def test_any_inputs_give_a_valid_sbom_and_the_same_bytes_again(
    tools: dict[str, str], name: str, digest: str
) -> None:
    more = {"made_from": [lineage(digest, "1" * 64, tools=tools, data={"calibration": record(name, digest)})]}
    sbom, statement = documents(**more)
    assert schema_problem(sbom) is None
    assert documents(**more) == (sbom, statement)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Return a bundle with provenance, which `make_bundle` needs a runtime for."""
    return with_provenance(tmp_path / "kws.eqb", *map(json.dumps, documents(digests=tiny_digests(tmp_path))))


def tiny_digests(folder: Path) -> dict[str, str]:
    write_tiny_bundle(folder / "tiny.eqb")
    tiny = read_bundle(folder / "tiny.eqb")
    return {name: entry.sha256 for name, entry in tiny.parsed.files.items()}


def with_provenance(path: Path, sbom: str, statement: str) -> Path:
    write_tiny_bundle(path)
    tiny = read_bundle(path)
    files = {name: tiny.open(name) for name in tiny.parsed.files}
    files |= {SBOM_FILE: sbom.encode(), STATEMENT_FILE: statement.encode()}
    manifest = {
        **tiny.manifest,
        "files": {name: entry_of(data) for name, data in files.items()},
        "provenance": {"sbom": SBOM_FILE, "statement": STATEMENT_FILE},
    }
    write_bundle(path, manifest, files, keys=[workspace_key(path.parent)])
    return path


def test_a_bundle_shows_its_provenance(
    made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made.parent)
    assert main(["bundle", "show", str(made)]) == 0
    out = capsys.readouterr().out
    assert "calibration.npz" in out
    assert "litert-quantizer 0.11.0" in out
    assert main(["bundle", "show", str(made), "--sbom", "sbom.json", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["sbom"] == json.loads(Path("sbom.json").read_text())
    assert main(["bundle", "show", "tiny.eqb", "--json"]) == 0  # from before there was provenance
    assert json.loads(capsys.readouterr().out)["sbom"] is None
    assert main(["bundle", "show", "tiny.eqb", "--sbom", "x.json"]) == 1


@pytest.mark.parametrize(
    ("which", "change", "error"),
    [
        (1, {"subject": []}, BundleAltered),
        (1, {"subject": [{"name": "model.tflite", "digest": {"sha256": "0" * 64}}]}, BundleAltered),
        (1, {"_type": "https://in-toto.io/Statement/v0.1"}, BundleError),
        (1, {"predicate": {}}, BundleError),
        (1, {"predicateType": 5}, BundleError),
        (0, {"bomFormat": "SPDX"}, BundleError),
        (0, {"metadata": {"component": {"type": "x", "name": "y", "hashes": []}}}, BundleAltered),
        (0, {"specVersion": "2"}, BundleError),
    ],
)
def test_documents_about_something_else_are_refused(
    tmp_path: Path, which: int, change: dict[str, Any], error: type[Exception]
) -> None:
    changed = list(documents(digests=tiny_digests(tmp_path)))
    changed[which] = {**changed[which], **change}
    with pytest.raises(error) as caught:
        with_provenance(tmp_path / "kws.eqb", *map(json.dumps, changed))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "5", "[" * 50_000, "\x00", '{"_type": NaN}'])
def test_a_document_that_is_not_one_is_refused(tmp_path: Path, text: str) -> None:
    sbom, _ = documents(digests=tiny_digests(tmp_path))
    with pytest.raises(BundleError):
        with_provenance(tmp_path / "kws.eqb", json.dumps(sbom), text)


def test_an_altered_document_does_not_fit_the_signed_manifest(made: Path) -> None:
    with zipfile.ZipFile(made) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(made, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data.replace(b"calibration.npz", b"calibration.npy"))
    with pytest.raises(BundleAltered):
        read_bundle(made)


@pytest.mark.slow
@pytest.mark.convert
def test_a_bundle_gets_what_the_store_has_recorded(tmp_path: Path, workspace: Path) -> None:
    model, data = tmp_path / "double.tflite", tmp_path / "test.npz"
    model.write_bytes(MODEL)
    np.savez(data, x=np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32))
    with Store.open(workspace) as store:
        made_from = lineage(DIGESTS["model.tflite"], "1" * 64).to_json()
        store.record_run("convert", "double", {"lineage": made_from})
        bundle = make_bundle(
            tmp_path / "a.eqb",
            model_file=model,
            name="double",
            variant="float32",
            data=data,
            keys=[workspace_key(workspace)],
            store=store,
        )
    assert bundle.provenance is not None
    assert schema_problem(dict(bundle.provenance.sbom)) is None
    roles = [one.role for one in materials_of(bundle.provenance.statement)]
    assert roles == ["golden-data", "source", "calibration"]
    assert read_bundle(tmp_path / "a.eqb").release == bundle.release
