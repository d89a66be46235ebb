"""One self-contained HTML file per report: the verdict first, then everything it stands on."""

from closerlook.report.collection import Collection, Section
from closerlook.report.collection import write as write_collection
from closerlook.report.html import Figure, Report, Table, render, write

__all__ = ["Collection", "Figure", "Report", "Section", "Table", "render", "write", "write_collection"]
