"""The report shows the store's content on one page that is safe and needs no network."""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edgeq.cli import main
from edgeq.errors import MissingExtra, StoreError, UsageError
from edgeq.report import Level, build_view, write_report
from edgeq.report.page import json_for_html, render
from edgeq.store import Store

WHEN = datetime(2030, 1, 2, 3, 4, tzinfo=UTC)


def test_problems_come_first(filled: Store) -> None:
    view = build_view(filled, title="kws", now=lambda: WHEN)
    assert view.created == "2030-01-02 03:04 UTC"
    bad = [line.text for line in view.verdicts if line.level is Level.BAD]
    assert [line.text for line in view.verdicts[: len(bad)]] == bad
    assert re.search(r"pi: kws aaaaaaaa HAS SHIFTED since window 1[23] of 20: .*input x \(PSI", bad[0])
    assert any("invalid because throttled: freq-capped" in text for text in bad)
    good = " ".join(line.text for line in view.verdicts if line.level is Level.OK)
    assert "coral: kws aaaaaaaa shows no shift in 12 windows (600 inferences)" in good
    assert "kws: int8 was chosen: 15.6 KiB, accuracy 97.0 %, output SQNR 24.5 dB against float." in good


def test_a_limit_of_a_slice_names_the_slice(tmp_path: Path) -> None:
    night = {"name": "accuracy_drop_max", "limit": 0.02, "value": 0.25, "holds": False, "subset": "night"}
    energy = {"name": "energy_nj_max", "limit": 2_000_000, "value": None, "holds": None, "subset": ""}
    candidate = {"name": "int8", "size_bytes": 100, "metrics": {}, "gates": [night, energy]}
    with Store.open(tmp_path) as store:
        store.record_run("select", "kws", {"chosen": None, "candidates": [candidate]})
        view = build_view(store)
    assert view.variants is not None
    assert view.variants.rows[0][-1] == (
        "accuracy drop of night at most 2.0 %: FAILS; energy at most 2 mJ: not measured yet"
    )


def test_the_tables_show_what_was_measured(filled: Store) -> None:
    view = build_view(filled)
    assert view.variants is not None
    assert view.devices is not None
    assert view.streams is not None
    assert view.variants.rows[1] == (
        "int8 (chosen)",
        "15.6 KiB",
        "97.0 %",
        "99.0 %",
        "24.5 dB",
        "yes",
        "size at most 19.5 KiB: holds; latency p95 at most 1.2 ms: FAILS",
    )
    assert view.variants.rows[0][-1].startswith("size at most 19.5 KiB: FAILS; ")
    assert view.variants.rows[2][-1].endswith("latency p95 at most 1.2 ms: not measured yet")
    assert view.devices.rows[0][:6] == ("pi", "kws aaaaaaaa", "1 ms", "1.3 ms", "1.9 ms", "3 ms")
    assert view.streams.rows[0][-1].startswith("ALARM after window 1")
    assert view.streams.rows[1][-2:] == ("1000", "no alarm")
    assert view.field is not None
    shown = dict(zip(view.field.headings, view.field.rows[0], strict=True))
    assert (shown["inferences"], shown["errors"], shown["p50"]) == ("1000", "0", "975 us")
    assert (shown["peak memory"], shown["hottest"], shown["windows"]) == ("1000 B", "-", "20")
    assert ("release", "kws int8", "a" * 64, "model.tflite bbbbbbbbbbbb") in view.provenance.rows
    for table in (view.variants, view.devices, view.field, view.streams, view.provenance):
        assert {len(row) for row in table.rows} == {len(table.headings)}


def test_the_report_of_one_model_shows_no_other(filled: Store) -> None:
    view = build_view(filled, model="other")
    assert (view.devices, view.latency, view.streams, view.drift) == (None, None, None, ())


def test_an_empty_store_is_an_error(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store, pytest.raises(StoreError, match="nothing to report yet"):
        build_view(store)


def test_the_page_needs_no_network_and_no_text_escapes(filled: Store) -> None:
    page = render(build_view(filled, title="<i>kws</i> & co"))
    head, _, rest = page.partition("<style>")
    assert "default-src 'none'" in head
    assert "<title>&lt;i&gt;kws&lt;/i&gt; &amp; co</title>" in head
    ours = head + rest.partition("</style>")[2].partition('<script type="application/json"')[0]
    assert not re.search(r"""(src|href)=["'](?!data:)""", ours)
    assert "&lt;b&gt;int8-min&lt;/b&gt;" in ours
    assert "<b>int8-min" not in page
    assert "alert(1)</script>" not in page
    document = re.search(r'id="figures">(.*?)</script>', page, re.DOTALL)
    assert document is not None
    figures = json.loads(document.group(1))
    assert [figure["id"] for figure in figures][:3] == ["pareto", "latency", "evidence-0"]


def test_json_cannot_end_its_element() -> None:
    text = json_for_html({"a": "</script><!--&"})
    assert "<" not in text
    assert json.loads(text) == {"a": "</script><!--&"}


@pytest.mark.parametrize("missing", ["plotly.offline", "jinja2"])
def test_a_missing_extra_is_reported(filled: Store, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtra) as caught:
        render(build_view(filled))
    assert "edgeq[dashboard]" in str(caught.value.hint)
    assert caught.value.exit_status == 2


def test_a_file_that_cannot_be_written_is_reported(filled: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="cannot be written"):
        write_report(tmp_path / "file" / "report.html", build_view(filled))


def test_the_command_writes_the_page(
    filled: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = filled.path.parent.parent
    target = tmp_path / "r.html"
    assert main(["--workspace", str(workspace), "report", "-o", str(target), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "edgeq.report/1"
    assert document["size_bytes"] == target.stat().st_size
    assert document["verdicts"][0]["level"] == "bad"
    assert main(["--workspace", str(tmp_path), "report", "-o", str(target)]) == 1
    assert "nothing to report yet" in capsys.readouterr().err
