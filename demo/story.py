"""What the demo prints, as it happens: lines, progress bars, checks that hold or do not, and tables at the end.

Plain lines where the output is no terminal. Nothing is asked.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from demo.judge import Finding, KindReport

PLAIN_STEPS = 4
PLAIN_WIDTH = 120
STATES = ("compensated", "never_happened", "irreversible", "skipped", "waiting", "pending")
TIMES = ("fault", "detected", "decided", "fenced", "contained", "drained", "whole")
MEANING = {
    "fault": "the release went out",
    "detected": "someone noticed",
    "decided": "someone asked for the kill",
    "fenced": "nothing of the release is admitted any more",
    "contained": "every instance knows",
    "drained": "the set is complete, and nothing of it can begin",
    "whole": "the last of them is undone",
}


class Story:
    """The narrator. `failed` counts the promises that did not hold."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        if not self.console.is_terminal:
            self.console = Console(highlight=False, width=PLAIN_WIDTH, soft_wrap=True)
        self.failed = 0
        self._begun = time.monotonic()

    def head(self, text: str) -> None:
        """A new part."""
        self.console.print()
        self.console.print(f"[bold]{escape(text)}[/]")

    def line(self, text: str) -> None:
        """A line of what happens, with the seconds since the start."""
        self.console.print(f"[dim]{time.monotonic() - self._begun:5.1f} s[/]  {escape(text)}")

    def check(self, holds: bool, text: str, *, why_not: str = "") -> bool:
        """A promise that holds, or does not."""
        mark = "[green]held[/]  " if holds else "[bold red]BROKEN[/]"
        self.console.print(f"{mark}   {escape(text)}{'' if holds or not why_not else ': ' + escape(why_not)}")
        self.failed += not holds
        return holds

    @contextmanager
    def progress(self, text: str, total: int) -> Iterator[Bar]:
        """A progress bar, or a line for every quarter where the output is no terminal."""
        if not self.console.is_terminal:
            yield Bar(self, text, total, None)
            return
        columns = (TextColumn("         {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.console, transient=True) as progress:
            yield Bar(self, text, total, progress)

    def timeline(self, record: dict[str, Any]) -> None:
        """When the fault began, and what happened until everything was whole."""
        fenced = datetime.fromisoformat(record["fenced_at"])
        table = Table(title="Timeline", title_justify="left", box=None, pad_edge=False, header_style="bold")
        for column, justify in (("what", "left"), ("at (UTC)", "left"), ("from the fence", "right"), ("", "left")):
            table.add_column(column, justify="right" if justify == "right" else "left", no_wrap=column != "")
        for name in TIMES:
            text = record.get(f"{name}_at")
            at = datetime.fromisoformat(text) if text else None
            ms = None if at is None else (at - fenced).total_seconds() * 1000
            table.add_row(
                name,
                f"{at:%H:%M:%S.%f}"[:-3] if at else "unknown",
                "" if ms is None else f"{ms:+,.0f} ms",
                MEANING[name],
            )
        self.console.print()
        self.console.print(table)

    def counts(self, report: dict[str, KindReport]) -> None:
        """What became of every effect of the set, per kind, and the money."""
        title = "What the release did, and what became of it"
        table = Table(title=title, title_justify="left", box=None, collapse_padding=True, pad_edge=False)
        table.add_column("kind", no_wrap=True)
        shown = [state for state in STATES if state in STATES[:3] or any(getattr(kind, state) for kind in report.values())]
        for name in ("set", *(state.replace("_", " ") for state in shown), "USD in the set", "USD back"):
            table.add_column(name, justify="right", min_width=max(len(word) for word in name.split()))
        for name, kind in report.items():
            money = [f"{kind.money(each) / 100:,.2f}" if kind.amounts else "" for each in ("admitted", "compensated")]
            table.add_row(name, str(kind.admitted), *(str(getattr(kind, state)) for state in shown), *money)
        self.console.print()
        self.console.print(table)
        total = sum(kind.admitted for kind in report.values())
        sums = [(state, sum(getattr(kind, state) for kind in report.values())) for state in STATES[:-1]]
        parts = " + ".join(f"{count} {state.replace('_', ' ')}" for state, count in sums)
        self.console.print(f"the set of {total} = {parts}")

    def findings(self, findings: list[Finding]) -> None:
        """What the judge found."""
        table = Table(title="What the judge found", title_justify="left", box=None, pad_edge=False, header_style="bold red")
        for column in ("what", "about", "how it reads"):
            table.add_column(column, overflow="fold")
        for finding in findings[:50]:
            table.add_row(finding.code.value.replace("_", " "), escape(finding.about), escape(finding.detail))
        self.console.print(table)
        if len(findings) > 50:
            self.console.print(f"and {len(findings) - 50} more")


class Bar:
    """How far something has come."""

    def __init__(self, story: Story, text: str, total: int, progress: Progress | None) -> None:
        self._story = story
        self._text = text
        self._total = max(total, 1)
        self._progress = progress
        self._task = progress.add_task(text, total=self._total) if progress is not None else None
        self._said = 0

    def at(self, count: int, total: int | None = None) -> None:
        """It has come to `count`, of a total that may have become known since."""
        self._total = max(total or self._total, 1)
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=count, total=self._total)
        elif count * PLAIN_STEPS // self._total > self._said:
            self._said = count * PLAIN_STEPS // self._total
            self._story.line(f"{self._text}: {count} of {self._total}")
