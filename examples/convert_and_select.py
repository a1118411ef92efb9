"""Convert a trained model and select a variant: `python examples/convert_and_select.py edgeq-demo`."""

import sys
from pathlib import Path

import edgeq


def main(folder: Path) -> None:
    """Convert the blueprint's model with each of its schemes, evaluate the variants, and select one."""
    blueprint = edgeq.load_blueprint(folder / "blueprint.toml")
    out = folder / "example"
    out.mkdir(exist_ok=True)
    reference = edgeq.convert(blueprint.source, out / "float32.tflite", scheme="float32").path
    baseline = edgeq.evaluate(reference, blueprint.evaluation)
    variants = []
    for scheme in blueprint.schemes:
        calibration = blueprint.calibration if scheme == "int8" else None
        made = edgeq.convert(
            blueprint.source, out / f"{scheme}.tflite", scheme=scheme, calibration=calibration
        )
        metrics = edgeq.evaluate(made.path, blueprint.evaluation, reference=reference)
        variants.append(
            edgeq.Variant(
                name=scheme, path=made.path, sha256=made.sha256, size_bytes=made.size_bytes, metrics=metrics
            )
        )
    selection = edgeq.select(variants, baseline=baseline, blueprint=blueprint)
    for candidate in selection.candidates:
        sys.stdout.write(f"{candidate.variant.name}: {candidate.variant.metrics}\n")
    chosen = selection.chosen
    sys.stdout.write(f"chosen: {chosen.variant.name if chosen else 'no variant meets every limit'}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
