"""A retraining's account in words: for the terminal and for the flow run's page."""

import time
from collections.abc import Callable
from typing import Any

from flows.terminal import duration
from flows.triggers import Trigger


def describe(trigger: Trigger, shown: Callable[[object], str] = str) -> list[str]:
    """Lines: what came, what was decided, the quality old against new, what became of the model.

    `shown` makes what comes from data fit for where the lines are shown.
    """
    lines = [f"{trigger['name']}: {trigger['state'].replace('-', ' ')} (trigger {trigger['id']}, {trigger['reason']})"]
    for entry in trigger.get("added", []):
        lines.append(f"- new in the data set: {shown(entry['source'])}, {counted(entry)}")
    lines += [f"- {shown(name)} was refused: {shown(why)}" for name, why in trigger.get("refused_files", {}).items()]
    for key, what in (("waiting", "still being written"), ("ignored", "no known format, left where it is")):
        lines += [f"- {shown(name)}: {what}" for name in trigger.get(key, [])]
    lines += [f"- {shown(name)} stays where it is: {shown(why)}" for name, why in trigger.get("left", {}).items()]
    if trigger.get("why"):
        lines.append(f"- {shown(trigger['why'])}")
    if trigger.get("code_changed"):
        lines.append(f"- the code changed after the trigger was made: {', '.join(trigger['code_changed'][:5])}")
    lines += [f"- trained again: {line}" for line in trigger.get("again", [])]
    if trigger["state"] == "refused":
        lines.append(
            "- the limits are settings of its recipe: extend that one, change them, and name yours with --recipe"
        )
    if trigger.get("quality"):
        lines += _quality(trigger["quality"])
    if trigger.get("version"):
        was = trigger["champion"]["version"]
        lines.append(f"- version {trigger['version']} (measured against {was}), {duration(trigger['seconds'])}")
    return lines


def counted(entry: dict[str, Any]) -> str:
    """`120 rows, set aside 3: 2 no label, 1 unknown label`."""
    aside = entry["rejected"]
    reasons = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in aside.items())
    return f"{entry['rows']:,} rows" + (f", set aside {sum(aside.values()):,}: {reasons}" if aside else "")


def _quality(quality: dict[str, Any]) -> list[str]:
    lines = [f"- {quality['metric']} on {quality['rows']:,} test rows: {_against(quality)}"]
    for epoch, figures in quality["epochs"].items():
        called = "the first data" if epoch == "0" else f"data epoch {epoch}"
        lines.append(f"  - {called}, {figures['rows']:,} rows: {_against(figures)}")
    return lines


def _against(figures: dict[str, Any]) -> str:
    old, new = figures["champion"], figures["candidate"]
    return f"{new:.4f}" if old is None else f"old {old:.4f}, new {new:.4f} ({new - old:+.4f})"


def history_line(trigger: Trigger) -> str:
    """One line of `retrain NAME --list`."""
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(trigger["created"]))
    times = f" ({trigger['times']} times)" if trigger.get("times") else ""
    version = f"version {trigger['version']}" if trigger.get("version") else ""
    why = trigger["why"] if trigger["state"] in ("refused", "failed") and trigger.get("why") else ""
    return f"{trigger['id']}  {when}  {trigger['state'] + times:<22} {trigger['reason']:<12} {version or why}".rstrip()
