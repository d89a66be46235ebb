"""One self-contained HTML file per report: the verdict first, then everything it stands on."""

from closerlook.report.html import Figure, Report, Table, render, write

__all__ = ["Figure", "Report", "Table", "render", "write"]
