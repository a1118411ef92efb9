"""A real browser draws the report's plots, offline and without an error."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from edgeq.report import build_view, write_report
from edgeq.store import Store

pytestmark = pytest.mark.browser


def _open(page: Path, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert browser is not None
    argv = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000"]
    argv += ["--enable-logging=stderr", "--v=0", f"--user-data-dir={folder / 'profile'}"]
    argv += ["--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND"]
    return subprocess.run(
        [*argv, *more, page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )


@pytest.mark.slow
def test_every_plot_is_drawn_offline(filled: Store, tmp_path: Path) -> None:
    view = build_view(filled, title="kws")
    page = write_report(tmp_path / "report.html", view)
    seen = _open(page, tmp_path, "--dump-dom")
    dom = seen.stdout.partition("<script")[0]  # plotly's own source mentions the class too
    for figure in view.figures:
        _, _, rest = dom.partition(f'id="{figure.id}"')
        assert 'class="main-svg"' in rest.partition("<figcaption>")[0], figure.id
    # A request would be refused by the page's policy and complained of (see the next test).
    complaints = [line for line in seen.stderr.splitlines() if "CONSOLE" in line]
    assert complaints == []


@pytest.mark.slow
def test_the_policy_stops_the_network(filled: Store, tmp_path: Path) -> None:
    # The same page with a planted request: the browser must refuse it and say so, which also shows that
    # the test above would have seen a complaint.
    page = write_report(tmp_path / "report.html", build_view(filled))
    text = page.read_text(encoding="utf-8")
    page.write_text(
        text.replace("</main>", '<img src="http://127.0.0.1:9/x.png"></main>', 1), encoding="utf-8"
    )
    seen = _open(page, tmp_path, "--dump-dom")
    assert any("CONSOLE" in line and "Content Security Policy" in line for line in seen.stderr.splitlines())


@pytest.mark.slow
def test_a_screenshot_is_not_blank(filled: Store, tmp_path: Path) -> None:
    page = write_report(tmp_path / "report.html", build_view(filled))
    picture = tmp_path / "shot.png"
    _open(page, tmp_path, f"--screenshot={picture}", "--window-size=1200,2600", "--hide-scrollbars")
    assert picture.stat().st_size > 50_000
