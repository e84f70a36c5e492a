"""What a person at the terminal sees: what will run, how far it is, the results, and what to type next."""

import threading
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from flows.request import Result
from flows.step_notes import step_notes
from pipelines.listener import Listener, Outcome
from pipelines.plan import Plan

PLAIN_SECONDS = 10.0
CAUSES = 4
"""So many lines on why something is done again."""
STYLES = {"ran": "green", "cached": "cyan", "failed": "bold red", "refused": "bold yellow"}


class Terminal(Listener):
    """Bars on a terminal; one line a step, and one every ten seconds, where there is none."""

    def __init__(self, home: Path, console: Console | None = None) -> None:
        self.home = home
        self.console = console or Console(stderr=True, highlight=False)
        self.live: Live | None = None
        self.bars = Progress(
            TextColumn("  {task.fields[name]:<10}"), BarColumn(24), TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), TextColumn("[dim]{task.fields[note]}"),
            console=self.console,
        )  # fmt: skip
        self.tasks: dict[str, TaskID] = {}
        self.last: dict[str, float] = {}
        self.lock = threading.RLock()

    def plan_made(self, plan: Plan, estimates: dict[str, float | None], causes: list[str]) -> None:
        hits = sum(step.hit for step in plan.steps)
        if plan.complete:
            self.console.print(f"[bold]{plan.recipe.name}[/]: all {hits} steps are in the store")
            return
        known = [seconds for seconds in estimates.values() if seconds]
        about = f", about {duration(sum(known))}" if known and len(known) == len(estimates) else ", time not known yet"
        todo = ", ".join(estimates)
        self.console.print(
            f"[bold]{plan.recipe.name}[/]: {len(estimates)} of {len(plan.steps)} steps to run{about}: {todo}",
            soft_wrap=True,
        )
        for cause in causes[:CAUSES]:
            self.console.print(f"  [dim]{escape(cause)}[/]", soft_wrap=True)
        if len(causes) > CAUSES:
            self.console.print(f"  [dim]and {len(causes) - CAUSES} more: stillhouse plan --explain[/]")

    def step_started(self, name: str) -> None:
        with self.lock:
            self.last[name] = time.monotonic()
            if not self.console.is_terminal:
                self.console.print(f"  {name} …")
                return
            if self.live is None:
                self.live = Live(self.bars, console=self.console, refresh_per_second=4, transient=True)
                self.live.start()
            if name not in self.tasks:
                self.tasks[name] = self.bars.add_task(name, total=None, name=name, note="starting")

    def progress(self, name: str, done: int, total: int, note: str) -> None:
        with self.lock:
            if name in self.tasks:
                self.bars.update(self.tasks[name], completed=done, total=total or None, note=note)
            elif time.monotonic() - self.last.get(name, 0.0) >= PLAIN_SECONDS:
                self.last[name] = time.monotonic()
                share = f"{100 * done / total:.0f}% " if total else ""
                self.console.print(f"  {name} {share}{note}")

    def step_finished(self, outcome: Outcome) -> None:
        with self.lock:
            name = outcome["name"]
            if name in self.tasks:
                self.bars.remove_task(self.tasks.pop(name))
            state = outcome["state"]
            seconds = f"{outcome['seconds']:>7.1f} s" if state != "cached" else " " * 9
            shown = "  ".join(f"{key} {figure(value)}" for key, value in list(outcome["metrics"].items())[:4])
            self.console.print(f"  {name:<10} [{STYLES.get(state, '')}]{state:<8}[/]{seconds}  {shown}", soft_wrap=True)
            for line in step_notes(outcome, self.home):
                self.console.print(f"  {'':<10} [dim]{escape(line)}[/]", soft_wrap=True)
            if outcome.get("warning"):
                self.console.print(f"  [yellow]{name} {outcome['warning']}; to make it again: --rebuild {name}[/]")

    def note(self, text: str) -> None:
        self.console.print(f"  [dim]{escape(text)}[/]")

    def close(self) -> None:
        """Take the bars away; what other threads still report is not shown."""
        if self.live is not None:
            self.live.stop()
            self.live = None
        self.console.quiet = True


def show_result(result: Result, rungs: list[dict[str, Any]], next_steps: list[str], console: Console) -> None:
    """Each rung's quality, size and speed; the verdict; the model's name; the next commands to type."""
    if rungs:
        _show_rungs(rungs, console)
    if result.gate:
        word = "[bold green]passed[/]" if result.gate["passed"] else "[bold yellow]refused[/]"
        console.print(f"gate: {word}")
        for reason in result.gate["reasons"]:
            console.print(f"  - {reason}")
    if result.refusal and (result.gate is None or result.gate["passed"]):
        console.print(f"[yellow]{result.refusal}[/]")
    if result.model:
        alias = f" ({result.model['alias']})" if result.model.get("alias") else ""
        console.print(f"model: [bold]{result.model['name']}[/] version {result.model['version']}{alias}")
        if result.model.get("note"):
            console.print(f"[yellow]{result.model['note']}[/]", soft_wrap=True)
    if result.report:
        console.print(f"report: {escape(result.report)}", soft_wrap=True)
    console.print(f"done in {duration(result.seconds)}")
    if next_steps:
        console.print("next:")
        for line in next_steps:
            console.print(f"  {line}", soft_wrap=True)


def _show_rungs(rungs: list[dict[str, Any]], console: Console) -> None:
    table = Table(box=None, padding=(0, 1))
    for column in ("model", "quality", "size", "texts/s", ""):
        left = column in ("model", "")
        table.add_column(column, justify="left" if left else "right", no_wrap=True)
    for rung in rungs:
        table.add_row(*(str(rung.get(key, "")) for key in ("model", "quality", "size", "speed", "note")))
    console.print(table)
    for rung in rungs:
        if rung.get("reason"):
            console.print(f"[yellow]{rung['model']} rejected, its input goes on: {rung['reason']}[/]", soft_wrap=True)
        if rung.get("against"):
            console.print(rung["against"], soft_wrap=True)


def duration(seconds: float) -> str:
    """`42 s`, `3 min 20 s`, `1 h 5 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def figure(value: float) -> str:
    """A figure as people read it: 22,713,216 · 0.7712 · 12.5."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}"


def size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
