"""A real browser shows the page of a run offline, in both themes, on a phone and on a wide screen."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeq.pipeline.page import run_page
from tests.pipeline.examined import classifier
from tests.pipeline.results import result_of

pytestmark = [pytest.mark.browser, pytest.mark.slow]

WHEN = datetime(2030, 1, 2, 3, 4, tzinfo=UTC)
PAPER = {"light": (255, 255, 255), "dark": (13, 17, 23)}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    path = folder / "page.html"
    html = run_page(result_of(folder, details=classifier()), now=lambda: WHEN)
    path.write_text(html, encoding="utf-8")
    return path


def browse(page: Path, folder: Path, *more: str, dark: bool = False) -> subprocess.CompletedProcess[str]:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert browser is not None
    argv = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000"]
    argv += ["--enable-logging=stderr", "--v=0", f"--user-data-dir={folder / 'profile'}"]
    argv += ["--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND", "--hide-scrollbars"]
    argv += (
        ["--blink-settings=preferredColorScheme=0"] if dark else ["--blink-settings=preferredColorScheme=1"]
    )
    return subprocess.run(
        [*argv, *more, page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )


def complaints(seen: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in seen.stderr.splitlines() if "CONSOLE" in line]


def test_the_page_loads_without_a_complaint(page: Path, tmp_path: Path) -> None:
    seen = browse(page, tmp_path, "--dump-dom")
    assert complaints(seen) == []
    assert seen.stdout.count("<svg") == 9


def test_the_policy_stops_requests_and_scripts(page: Path, tmp_path: Path) -> None:
    # The same page with a planted request and script: the browser must refuse both and say so, which also
    # shows that the test above would have seen a complaint.
    planted = tmp_path / "planted.html"
    more = '<img src="http://127.0.0.1:9/x.png"><script>document.title = "ran"</script></main>'
    planted.write_text(page.read_text(encoding="utf-8").replace("</main>", more, 1), encoding="utf-8")
    seen = browse(planted, tmp_path, "--dump-dom")
    assert len([line for line in complaints(seen) if "Content Security Policy" in line]) == 2
    assert "<title>ran</title>" not in seen.stdout


@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_fits_its_screen_in_both_themes(page: Path, tmp_path: Path, width: int, theme: str) -> None:
    # A headless window has a least width: the page is shown in a frame of the width to test.
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<body style="margin: 0"><iframe src="{page.as_uri()}" width="{width}" height="2000" '
        'style="border: 0"></iframe>'
    )
    picture = tmp_path / "shot.png"
    browse(frame, tmp_path, f"--screenshot={picture}", "--window-size=1400,2000", dark=theme == "dark")
    shot = np.asarray(Image.open(picture).convert("RGB")).astype(int)[:, :width]
    paper = np.abs(shot - PAPER[theme]).sum(axis=2) == 0
    assert paper.mean() > 0.5  # the theme of the reader
    assert paper[:, -4:].mean() > 0.99  # nothing runs over the right edge
    assert 1 - paper.mean() > 0.05  # something is drawn
