"""Reproducing: a model file built again from its lineage, and the reasons where the bytes differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edgeq.conversion import qat
from edgeq.conversion.conversion import convert
from edgeq.conversion.lineage import entry, environment, short
from edgeq.errors import ModelError
from edgeq.version import VERSION
from edgeq_converters.recipe import Recipe

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """What came of building a file again.

    Attributes:
        expected: the digest of the record.
        differs: what is not as it was recorded; also where the bytes are the same.
    """

    path: Path
    sha256: str
    expected: str
    differs: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether the bytes are the same."""
        return self.sha256 == self.expected


def reproduce(
    lineage: Mapping[str, Any],
    output: Path,
    *,
    source: Path | None = None,
    data: Mapping[str, Path] | None = None,
    on_progress: Progress | None = None,
) -> Reproduction:
    """Build a file again from its lineage and write it to `output`.

    Args:
        source: where the source lies now, if it was moved.
        data: the same for calibration, training and validation data, by these names.

    Raises:
        ModelError: EQ324 a file is gone, was changed, or was never one; or the recipe is a newer edgeq's.
        MissingExtra, DataError, ModelError: as `convert`.
    """
    output_sha = str(lineage["output"]["sha256"])
    subject = short(output_sha)
    given = {name: str(path) for name, path in (data or {}).items()}
    paths = {"source": _found("source", lineage["source"], str(source) if source else None, subject)}
    for name, recorded in lineage["data"].items():
        paths[name] = _found(name, recorded, given.get(name), subject)
    again = _tuned if lineage["recipe"].get("schema") == qat.SCHEMA else _converted
    sha256, tools = again(lineage["recipe"], paths, output, subject, on_progress)
    return Reproduction(
        path=output, sha256=sha256, expected=output_sha, differs=tuple(differences(lineage, tools))
    )


Paths = Mapping[str, Path]


def _converted(
    body: Mapping[str, Any], paths: Paths, output: Path, subject: str, on_progress: Progress | None
) -> tuple[str, Mapping[str, str]]:
    try:
        recipe = Recipe.from_dict(body)
    except ValueError as error:
        raise ModelError(subject, f"its recipe cannot be read ({error})", code="EQ324") from error
    done = convert(
        paths["source"],
        output,
        recipe=recipe,
        calibration=paths.get("calibration"),
        histograms=paths.get("histograms"),
        training=paths.get("training"),
        validation=paths.get("validation"),
        on_progress=on_progress,
    )
    return done.sha256, done.tools


def _tuned(
    body: Mapping[str, Any], paths: Paths, output: Path, subject: str, on_progress: Progress | None
) -> tuple[str, Mapping[str, str]]:
    asked = {key: value for key, value in body.items() if key != "schema"}
    if set(asked) != {"scheme", "epochs", "distill", "seed"}:
        raise ModelError(
            subject, f"its tuning cannot be read (it has {', '.join(sorted(asked))})", code="EQ324"
        )
    done = qat.tune(
        paths["source"],
        output,
        training=paths.get("training"),
        validation=paths.get("validation"),
        on_progress=on_progress,
        **asked,
    )
    return done.sha256, done.tools


def differences(lineage: Mapping[str, Any], tools: Mapping[str, str] | None = None) -> list[str]:
    """Return how this installation differs from the recorded one, one line each.

    Args:
        tools: versions that took part now; those that are installed otherwise.
    """
    now = {"edgeq": VERSION, **(tools or _installed(lineage["tools"]))}
    found = [
        f"{name} was {then}, is {now.get(name, 'not there')}"
        for name, then in sorted(lineage["tools"].items())
        if now.get(name) != then
    ]
    here = environment(trained="cores" in lineage["environment"])
    found += [
        f"{name} was {then}, is {here.get(name)}"
        for name, then in sorted(lineage["environment"].items())
        if here.get(name) != then
    ]
    return found


def _installed(names: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # `differences` says that it is not there
    return found


def _found(what: str, recorded: Mapping[str, Any], given: str | None, subject: str) -> Path:
    option = f"--{what} PATH"
    if given is None and recorded["path"] is None:
        raise ModelError(
            subject,
            f"its {what} data was given as arrays in Python, not as a file",
            hint=f"save the same arrays and give them with {option}",
            code="EQ324",
        )
    path = Path(given or str(recorded["path"]))
    if not path.exists():
        raise ModelError(
            subject,
            f"its {what} is gone: {path}",
            expected=f"a file of {recorded['size_bytes']} bytes, sha256 {short(recorded['sha256'])}",
            hint=f"give it with {option}",
            code="EQ324",
        )
    now = entry(path)
    # Arrays from Python were digested as the file that the worker got, which no file of the user equals.
    if recorded["path"] is not None and now["sha256"] != recorded["sha256"]:
        raise ModelError(
            subject,
            f"its {what} was changed: {path}",
            expected=f"sha256 {short(recorded['sha256'])}",
            got=short(now["sha256"]),
            hint=f"give the file as it was with {option}",
            code="EQ324",
        )
    return path
