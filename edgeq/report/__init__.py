"""Reports: one self-contained HTML page from what was measured."""

from __future__ import annotations

from edgeq.report.build import build_view
from edgeq.report.page import write_report
from edgeq.report.view import Figure, Level, ReportView, Table, VerdictLine, utc_now

__all__ = ["Figure", "Level", "ReportView", "Table", "VerdictLine", "build_view", "utc_now", "write_report"]
