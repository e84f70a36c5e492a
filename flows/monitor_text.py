"""What a monitor run says: to a terminal, and on the page of its flow run."""

import time
from typing import Any

from flows.markdown_text import plain


def one_line(line: dict[str, Any]) -> str:
    """For a state's message: what is alarming, or that nothing is."""
    told = "; ".join(alert["reason"] for alert in line["alerts"])
    if told:
        return told
    if line["alarms"]:
        return f"{', '.join(line['alarms'])}: still alarming, told before"
    return f"{line['rows']:,} rows, no alarm" if line["rows"] else "; ".join(line["notes"])


def table(line: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each test, then for each label that rose."""
    rows = [
        {
            "test": test["name"], "value": round(test["effect"], 4), "alarm from": test["threshold"],
            "p": f"{test['p_value']:.2g}", "rows": test["rows"], "reference": test["reference_rows"],
            "alarm": "ALARM" if test["alarm"] else "",
        }
        for test in line["tests"]
    ]  # fmt: skip
    rows += [
        {
            "test": f"surge of {one['label']} in {one['topic'] or '(no topic)'}", "value": round(one["share"], 4),
            "alarm from": round(one["expected"] + line["settings"]["min_rise"], 4), "p": f"{one['p_value']:.2g}",
            "rows": one["rows"], "reference": "", "alarm": "ALARM" if one["state"] == "alert" else one["state"],
        }
        for one in line["surge"]["table"]
    ]  # fmt: skip
    return rows


def text(line: dict[str, Any]) -> list[str]:
    """Lines for a terminal."""
    found = [f"{line['name']}{_version(line)}: {line['rows']:,} rows{_between(line)}"]
    for row in table(line):
        mark = f"  {row['alarm']}" if row["alarm"] else ""
        found.append(f"  {row['test']:<34} {row['value']:<8} (from {row['alarm from']}, p {row['p']}){mark}")
    surge = line["surge"]
    if surge["windows"]:
        found.append(f"  {'surges':<34} {surge['windows']} windows, {surge['tests']} tests")
    found += [f"  {words}" for words in figures(line)]
    found += [f"  note: {note}" for note in line["notes"]]
    found += [f"  told: {alert['event']}: {alert['reason']}" for alert in line["alerts"]]
    if line["rows"] and not line["alarms"]:
        found.append("  no alarm")
    return found


def figures(line: dict[str, Any]) -> list[str]:
    """Quality as measured and as estimated, where there is something."""
    found = []
    if line["quality"]:
        shown = ", ".join(
            f"{name} {value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
            for name, value in line["quality"].items()
            if isinstance(value, dict)
        )
        found.append(f"quality on {line['quality']['rows']:,} rows with labels: {shown}")
    if line["estimate"]:
        estimate = line["estimate"]
        found.append(
            f"accuracy as estimated without labels: {estimate['accuracy']:.3f} (released {estimate['reference']:.3f})"
        )
    return found


def _version(line: dict[str, Any]) -> str:
    return f" version {line['version']}" if line["version"] else ""


def _between(line: dict[str, Any]) -> str:
    if not line["window"]:
        return ""
    start, end = (time.strftime("%Y-%m-%d %H:%M", time.localtime(line["window"][name])) for name in ("start", "end"))
    return f" from {start} to {end}"


def markdown(line: dict[str, Any]) -> str:
    """The run's page."""
    head = "Alarm: " + ", ".join(line["alarms"]) if line["alarms"] else "No alarm"
    parts = [f"# {head}", f"**{line['name']}**{_version(line)}: {line['rows']:,} rows{_between(line)}"]
    parts += [f"- **{alert['event']}**: {plain(alert['reason'])}" for alert in line["alerts"]]
    parts += [f"- {words}" for words in figures(line)]
    parts += [f"- {plain(note)}" for note in line["notes"]]
    rows = table(line)
    if rows:
        names = list(rows[0])
        parts.append("")
        parts.append("| " + " | ".join(names) + " |")
        parts.append("|" + "---|" * len(names))
        parts += ["| " + " | ".join(plain(row[name]) for name in names) + " |" for row in rows]
    return "\n".join(parts)
