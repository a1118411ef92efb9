"""Reproduce: rebuild a model file from its lineage and explain differing bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edgeq.conversion import qat
from edgeq.conversion.conversion import Conversion, convert
from edgeq.conversion.lineage import FileRecord, Lineage, environment, file_record, short
from edgeq.converters_client import Progress
from edgeq.errors import ModelError
from edgeq.store import UNRECORDED
from edgeq.version import VERSION
from edgeq_converters.recipe import Recipe
from edgeq_converters.training.loss_source import LossSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """A rebuilt file.

    Attributes:
        expected: the SHA-256 in the lineage.
        differs: how tools and machine differ from the recorded ones; may be non-empty for equal bytes.
        warnings: what may be wrong with the rebuilt file, as when it was made first.
    """

    path: Path
    sha256: str
    expected: str
    differs: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Whether the bytes are the same."""
        return self.sha256 == self.expected


def reproduce(
    lineage: Lineage,
    output: Path,
    *,
    source: Path | None = None,
    data: Mapping[str, Path] | None = None,
    on_progress: Progress | None = None,
) -> Reproduction:
    """Rebuild a file from its lineage and write it to `output`; nothing is recorded.

    Args:
        source: the current path of the source, if it was moved.
        data: current paths of `calibration`, `histograms`, `training` and `validation` data, if moved.
        on_progress: called with (step, done, total).

    Raises:
        ModelError: EQ324 a file is missing, has changed or was never a file, or a newer edgeq wrote the
            recipe.
        MissingExtra, DataError, ModelError: as `convert`.
    """
    subject = short(lineage.output.sha256)
    moved = {name: str(path) for name, path in (data or {}).items()}
    paths = {"source": _locate("source", lineage.source, str(source) if source else None, subject)}
    for name, recorded in lineage.data.items():
        paths[name] = _locate(name, recorded, moved.get(name), subject)
    rebuild = _tune if lineage.recipe.get("schema") == qat.SCHEMA else _convert
    rebuilt = rebuild(lineage.recipe, paths, output, subject, on_progress)
    return Reproduction(
        path=output,
        sha256=rebuilt.sha256,
        expected=lineage.output.sha256,
        differs=tuple(differences(lineage, rebuilt.tools)),
        warnings=rebuilt.warnings,
    )


def reproduce_chain(
    links: Sequence[Lineage],
    output: Path,
    *,
    workdir: Path,
    source: Path | None = None,
    data: Mapping[str, Path] | None = None,
    on_progress: Progress | None = None,
) -> Reproduction:
    """Rebuild a file from its lineage, and before it each recorded source of it that is not there any more.

    Args:
        links: the lineage of the file, then of its source, and so on (`recorded_lineage.chain_of`).
        workdir: for the rebuilt sources.

    Other arguments and errors as in `reproduce`.

    Raises:
        ModelError: EQ324 a rebuilt source has other bytes than the recorded one.
    """
    first, *rest = links
    if source is None and rest and not _is_there(first.source):
        path = workdir / f"source-{len(rest)}{Path(str(first.source.path)).suffix}"
        rebuilt = reproduce_chain(rest, path, workdir=workdir, data=data, on_progress=on_progress)
        if not rebuilt.same:
            why = "; ".join(rebuilt.differs) or "every recorded property is the same"
            raise ModelError(
                short(first.output.sha256),
                f"its source was rebuilt with different bytes ({why})",
                expected=f"sha256 {short(rebuilt.expected)}",
                got=short(rebuilt.sha256),
                hint="install the recorded versions, or pass the original file with --source PATH",
                code="EQ324",
            )
        source = path
    return reproduce(first, output, source=source, data=data, on_progress=on_progress)


def _is_there(recorded: FileRecord) -> bool:
    path = Path(str(recorded.path))
    return recorded.path is not None and path.exists() and file_record(path).sha256 == recorded.sha256


Paths = Mapping[str, Path]


def _convert(
    body: Mapping[str, Any], paths: Paths, output: Path, subject: str, on_progress: Progress | None
) -> Conversion:
    try:
        recipe = Recipe.from_dict(body)
    except ValueError as error:
        raise ModelError(subject, f"its recipe cannot be read ({error})", code="EQ324") from error
    return convert(
        paths["source"],
        output,
        recipe=recipe,
        calibration=paths.get("calibration"),
        histograms=paths.get("histograms"),
        training=paths.get("training"),
        validation=paths.get("validation"),
        loss=_loss(recipe.loss, paths),
        on_progress=on_progress,
        store=UNRECORDED,
    )


def _tune(
    body: Mapping[str, Any], paths: Paths, output: Path, subject: str, on_progress: Progress | None
) -> qat.Tuned:
    options = {key: value for key, value in body.items() if key not in {"schema", "loss"}}
    if set(options) != {"scheme", "epochs", "distill", "seed"}:
        raise ModelError(
            subject,
            f"its tuning settings cannot be read (they have {', '.join(sorted(options))})",
            code="EQ324",
        )
    return qat.tune(
        paths["source"],
        output,
        training=paths.get("training"),
        validation=paths.get("validation"),
        loss=_loss(str(body.get("loss", "")), paths),
        on_progress=on_progress,
        store=UNRECORDED,
        **options,
    )


def _loss(text: str, paths: Paths) -> LossSource | str | None:
    """Return a recorded loss, with the file that was found for it."""
    file = paths.get("loss")
    if file is None:
        return text or None
    place, _, function = text.rpartition(":")
    package = "" if place.endswith(".py") or "." not in place else place
    return LossSource(function=function, file=file, package=package)


def differences(lineage: Lineage, tools: Mapping[str, str] | None = None) -> list[str]:
    """Return how this installation differs from the recorded one, one line each.

    Args:
        tools: versions used for the rebuild; None takes the installed ones.
    """
    now = {"edgeq": VERSION, **(tools or _installed(lineage.tools))}
    changed = [
        f"{name} was {then}, is {now.get(name, 'not installed')}"
        for name, then in sorted(lineage.tools.items())
        if now.get(name) != then
    ]
    here = environment(trained="cores" in lineage.environment)
    changed += [
        f"{name} was {then}, is {here.get(name)}"
        for name, then in sorted(lineage.environment.items())
        if here.get(name) != then
    ]
    return changed


def _installed(names: Mapping[str, str]) -> dict[str, str]:
    versions = {}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue  # `differences` reports it as not installed
    return versions


def _locate(what: str, recorded: FileRecord, moved: str | None, subject: str) -> Path:
    option = f"--{what} PATH"
    if moved is None and recorded.path is None:
        raise ModelError(
            subject,
            f"its {what} data was given as arrays in Python, not as a file",
            hint=f"save the same arrays to a file and pass it with {option}",
            code="EQ324",
        )
    path = Path(moved or str(recorded.path))
    if not path.exists():
        raise ModelError(
            subject,
            f"its {what} is missing: {path}",
            expected=f"a file of {recorded.size_bytes} bytes, sha256 {short(recorded.sha256)}",
            hint=f"pass its current path with {option}",
            code="EQ324",
        )
    now = file_record(path)
    # Arrays from Python were digested as the worker's own file, which no file of the user equals.
    if recorded.path is not None and now.sha256 != recorded.sha256:
        raise ModelError(
            subject,
            f"its {what} has changed: {path}",
            expected=f"sha256 {short(recorded.sha256)}",
            got=short(now.sha256),
            hint=f"pass the original file with {option}",
            code="EQ324",
        )
    return path
