"""int8 side by side: TFLiteConverter, litert-quantizer's defaults, and edgeq, on several models.

`python -m benchmarks.quantization [--json] [--models kws,ic,...] [--keep FOLDER]`
"""

from __future__ import annotations

from pathlib import Path

from benchmarks import side_by_side
from benchmarks.figures import Figure
from benchmarks.quantization_models import NAMES
from benchmarks.side_by_side import EDGEQ, SHARED, Row, run

SOURCES = {"kws": "saved_model", "ic": "pretrainedResnet.h5"}
REACH_DB = {"kws": ">=33.0", "ic": ">=25.5"}
"""The goals; for the other models, TFLiteConverter's result is the goal."""


def measure(name: str, folder: Path) -> list[Row]:
    """Convert one model with each tool and compare the files with TFLiteConverter's float32."""
    folder.mkdir(parents=True, exist_ok=True)
    data, source = folder, folder / "model.keras"
    if name in SOURCES:
        data, source = SHARED / name, SHARED / name / SOURCES[name]
    elif not source.exists():
        run("-m", "benchmarks.quantization_models", name, folder)
    calibration, floating = data / "calibration.npz", folder / "float.tflite"
    files = {tool: folder / f"{tool}.tflite" for tool in ("tensorflow", "litert-quantizer", "edgeq")}
    peers = "benchmarks.quantization_peers"
    commands: dict[str, tuple[object, ...]] = {
        "tensorflow": ("-m", peers, "tensorflow", source, calibration, files["tensorflow"], floating),
        "litert-quantizer": ("-m", peers, "litert", floating, calibration, files["litert-quantizer"]),
        "edgeq": (
            "-c", EDGEQ, "convert", floating, "-o", files["edgeq"], "--scheme", "int8", "--io", "int8",
            "--calibration", calibration,
        ),
    }  # fmt: skip
    made = {tool: (files[tool], run(*words)[0]) for tool, words in commands.items()}
    return side_by_side.compared(name, floating, made, data / "evaluation.npz")


def figures(name: str, rows: list[Row]) -> list[Figure]:
    """Return the figures of one model."""
    of = {row.tool: row for row in rows}
    ours, peer = of["edgeq"], of["tensorflow"]
    ratio = ours.latency_us[0] / peer.latency_us[0]
    spread = ours.latency_us[1] / ours.latency_us[0] + peer.latency_us[1] / peer.latency_us[0]

    def one(what: str, value: float, unit: str, other: float | None, reach: str) -> Figure:
        return Figure(name=f"{name} {what}", value=value, unit=unit, peer=other, reach=reach)

    db = REACH_DB.get(name, f">={peer.sqnr_db:.6f}")
    return [
        one("int8 output SQNR", ours.sqnr_db, "dB", peer.sqnr_db, db),
        one(
            "int8 output SQNR over litert-quantizer's defaults",
            ours.sqnr_db - of["litert-quantizer"].sqnr_db,
            "dB",
            0.0,
            ">0",
        ),
        one("top-1 drop", ours.drop * 100, "points", peer.drop * 100, f"<={max(peer.drop * 100, 0):.6f}"),
        one("agreement with float", ours.agreement, "share", peer.agreement, f">={peer.agreement:.6f}"),
        one("latency over TFLiteConverter's", ratio, "ratio", 1.0, f"<={1 + max(spread, 0.02):.4f}"),
        one("seconds to convert", ours.spent.seconds, "s", peer.spent.seconds, "<90"),
    ]


if __name__ == "__main__":
    side_by_side.main(
        __doc__,
        (*SOURCES, *NAMES),
        measure=measure,
        figures=figures,
        data=lambda name: SHARED / name if name in SOURCES else None,
    )
