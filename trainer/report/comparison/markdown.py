"""The report of several runs as Markdown."""

from trainer.report.comparison.compare import notes
from trainer.report.comparison.several import SeveralRuns
from trainer.report.markdown import as_lines
from trainer.report.markup import as_markdown
from trainer.report.tables.several import several_tables


def several_markdown(several: SeveralRuns) -> str:
    """Returns every table of several runs, what they say, and a summary of each run."""
    lines = [f"# {as_markdown(several.name)}", ""]
    findings = [
        f"{finding['split']}: {finding['message']}" if finding["split"] else finding["message"]
        for finding in several.findings
    ]
    remarks = [*notes(several.comparison), *findings]
    lines += [*(f"- {as_markdown(note)}" for note in remarks), ""] * bool(remarks)
    for table in several_tables(several):
        lines += [as_markdown(table.caption), "", *as_lines(table), ""]
    lines += ["## Runs", ""]
    for label, report in several.reports.items():
        lines += [f"- {as_markdown(label)}: {as_markdown(report.summary)}"]
    return "\n".join(lines) + "\n"
