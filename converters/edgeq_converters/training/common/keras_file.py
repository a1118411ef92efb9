"""Write a reproducible `.keras` file: without the time of saving, the same model gives the same bytes."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

_EPOCH = (1980, 1, 1, 0, 0, 0)


def write(model: Any, path: Path) -> None:
    """Save the model to `path`."""
    dated = path.with_name(f"dated-{path.name}")
    model.save(dated)
    with zipfile.ZipFile(dated) as source, zipfile.ZipFile(path, "w") as target:
        for name in sorted(source.namelist()):
            content = source.read(name)
            if name == "metadata.json":
                content = json.dumps({**json.loads(content), "date_saved": "1980-01-01@00:00:00"}).encode()
            target.writestr(zipfile.ZipInfo(name, _EPOCH), content, zipfile.ZIP_STORED)
    dated.unlink()
