"""What a run did, for people: a table for the terminal and one HTML file."""

from envgym.report.html import render_report
from envgym.report.table import interval_text, summary_table

__all__ = ["interval_text", "render_report", "summary_table"]
