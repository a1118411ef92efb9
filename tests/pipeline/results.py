"""Whole results of runs for tests of what is shown of them, from values like those of a real run."""

from __future__ import annotations

import hashlib
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from edgeq.blueprint import Blueprint, Limits, Preference, Scheme
from edgeq.conversion import Recipe
from edgeq.conversion.lineage import FileRecord, Lineage
from edgeq.evaluation import Details
from edgeq.pipeline import RunResult
from edgeq.pipeline.judging import Target, judge
from edgeq.pipeline.phases import Phase
from edgeq.pipeline.result import SkippedPhase
from edgeq.search.building import BuiltCandidate
from edgeq.search.measuring import Latency
from edgeq.values import Metrics, Variant

SAMPLES = 700
# name, family, size in bytes, right answers of 700, SQNR in dB, median in ns
ROWS = (
    ("float32", "float32", 53_248, 683, float("inf"), 41_000),
    ("int8-plain", "int8", 14_612, 655, 17.2, 9_300),
    ("int8", "int8", 14_664, 682, 24.5, 9_350),
    ("float16", "float16", 27_904, 683, 61.0, 42_500),
    ("dynamic", "dynamic", 15_980, 681, 33.1, 15_200),
    ("int16x8", "int16x8", 15_240, 683, 52.3, 88_000),
    ("int8-mixed-1", "one float region", 17_100, 683, 29.9, 12_100),
    ("pruned-30-int8", "pruning", 11_900, 661, 19.8, 7_700),
    ("qat-int8", "qat", 14_664, 684, 25.1, 9_420),
)
LIMITS = Limits(
    accuracy_drop_max=0.02,
    accuracy_min=0.9,
    output_sqnr_db_min=20.0,
    size_bytes_max=20 * 1024,
    latency_p95_ns_max=50_000,
    memory_peak_bytes_max=64 << 20,
)


def digest(text: str) -> str:
    """Return a digest as a file would have it."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def result_of(
    folder: Path,
    *,
    limits: Limits = LIMITS,
    names: dict[str, str] | None = None,
    name: str = "kws",
    rows: tuple[tuple[str, str, int, int, float, int], ...] = ROWS,
    device: str = "pi-test",
    details: Details | None = None,
) -> RunResult:
    """Return the result of a run over candidates of all kinds, on this machine and on a device.

    Args:
        folder: for the evaluation file, which the lineage digests.
        names: other names for candidates.
        rows: the candidates, as in `ROWS`; the first is the float model.
        details: of the chosen candidate.
    """
    evaluation = folder / "evaluation.npz"
    evaluation.write_bytes(b"samples")
    plan = Blueprint(
        name=name,
        source=Path("/srv/secret-project/kws.keras"),
        calibration=Path("calibration.npz"),
        evaluation=evaluation,
        schemes=(Scheme.INT8, Scheme.FLOAT16, Scheme.DYNAMIC, Scheme.INT16X8, Scheme.INT8_MIXED),
        io=None,
        labels=(),
        limits=limits,
        prefer=(Preference.SIZE, Preference.ACCURACY),
        digest=digest(name),
    )
    built = [_built((names or {}).get(row[0], row[0]), row, rows[0][3]) for row in rows]
    variants = [each.variant for each in built if each.variant is not None]
    targets = (
        Target(latencies=_latencies(variants, rows, factor=1)),
        Target(name=device, latencies=_latencies(variants, rows, factor=4, but_not=rows[-1][0])),
    )
    selection = judge(
        variants,
        schemes={each.name: each.recipe.scheme for each in built},
        baseline=variants[0].metrics,
        blueprint=plan,
        targets=targets[:1],
    )
    refused = BuiltCandidate(
        name="int4",
        family="int4",
        recipe=Recipe(scheme=Scheme.INT4),
        variant=None,
        problem="EQ332: no operation has weights that int4 suits",
        reused=False,
    )
    return RunResult(
        blueprint=plan,
        baseline=variants[0],
        built=(*built, refused),
        selection=selection,
        targets=targets,
        skipped=(SkippedPhase(phase=Phase.QAT, reason="data.training is missing"),),
        reused=4,
        done=7,
        seconds=83.2,
        details=details,
    )


def _built(name: str, row: tuple[str, str, int, int, float, int], float_right: int) -> BuiltCandidate:
    _, family, size_bytes, right, sqnr_db, _ = row
    accuracy, drop = right / SAMPLES, (float_right - right) / SAMPLES
    metrics = Metrics(
        samples=SAMPLES,
        accuracy=accuracy,
        agreement=1 - abs(drop),
        agreement_of="classes",
        output_sqnr_db=sqnr_db,
        accuracy_ci95=(accuracy - 0.013, accuracy + 0.009),
        agreement_ci95=(1 - abs(drop) - 0.01, 1.0),
        accuracy_drop=drop,
        accuracy_drop_ci95=(drop - 0.008, drop + 0.008),
        smallest_drop=0.0071,
    )
    scheme = next((each for each in Scheme if each.value == family), Scheme.INT8)
    recipe = Recipe(scheme=scheme)
    sha256 = digest(name)
    path = Path("/srv/secret-project/.edgeq/runs/kws") / f"{digest(name)[:12]}.tflite"
    return BuiltCandidate(
        name=name,
        family=family,
        recipe=recipe,
        variant=Variant(name=name, path=path, sha256=sha256, size_bytes=size_bytes, metrics=metrics),
        problem="",
        reused=False,
        lineage=Lineage(
            output=FileRecord(path=str(path), sha256=sha256, size_bytes=size_bytes),
            source=FileRecord(
                path="/srv/secret-project/kws.keras", sha256=digest("source"), size_bytes=210_000
            ),
            data={
                "calibration": FileRecord(
                    path="/srv/secret-project/calibration.npz",
                    sha256=digest("calibration"),
                    size_bytes=1_200_000,
                )
            },
            recipe={"schema": "edgeq.recipe/1", **recipe.to_dict()},
            recipe_sha256=digest("recipe"),
            seed=0,
            backend="litert",
            tools={"edgeq": "0.1.0", "litert-quantizer": "0.11.0", "numpy": "2.4.6"},
            environment={"python": "3.11.14", "machine": "x86_64", "processor": "a processor"},
        ),
    )


def _latencies(
    variants: list[Variant],
    rows: tuple[tuple[str, str, int, int, float, int], ...],
    *,
    factor: int,
    but_not: str = "",
) -> dict[str, Latency]:
    latencies = {}
    for variant, row in zip(variants, rows, strict=True):
        if row[0] != but_not:
            p50_ns = factor * row[5]
            latencies[variant.sha256] = Latency(
                p50_ns=p50_ns, p95_ns=p50_ns * 6 // 5, low_ns=p50_ns * 19 // 20, high_ns=p50_ns * 21 // 20
            )
    return latencies


class Page(HTMLParser):
    """What a page or fragment contains: its marks, tags and text.

    Attributes:
        marks: the attributes of each mark, by figure and in their order.
        ids: all of them.
        document: the JSON of the element `#run`.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.marks: dict[str, list[dict[str, str]]] = {}
        self.ids: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self._figure = ""
        self._json = ""
        self._in_json = False
        self.feed(html)
        self.close()

    @property
    def document(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self._json)
        return parsed

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.tags.append((tag, attributes))
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if tag == "svg":
            self._figure = attributes["id"]
            self.marks[self._figure] = []
        if attributes.get("id", "").startswith(f"{self._figure}-mark-"):
            self.marks[self._figure].append(attributes)
        self._in_json = tag == "script" and attributes.get("id") == "run"

    def handle_data(self, data: str) -> None:
        if self._in_json:
            self._json += data
        else:
            self.words.append(data)
