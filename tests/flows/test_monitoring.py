"""The words of `stillhouse monitor`: moments, settings, what is shown."""

import time
from datetime import UTC, datetime

import pytest

from flows.markdown_text import plain
from flows.moments import moment
from flows.monitor_text import markdown, one_line, table, text
from flows.monitoring import parse_settings, run_monitor
from flows.output import visible
from stillhouse.errors import UserError


def test_moments():
    assert moment("", "since") is None
    assert moment("2h", "since") == pytest.approx(time.time() - 7200, abs=5)
    assert moment("2026-11-25T08:00:00+00:00", "since") == datetime(2026, 11, 25, 8, tzinfo=UTC).timestamp()
    with pytest.raises(UserError, match='since: "soon" is no moment'):
        moment("soon", "since")


@pytest.mark.parametrize("never", ["999999d", "0001-01-01T00:00:00+14:00"])
def test_a_moment_that_never_was(never):
    with pytest.raises(UserError, match="is no moment"):
        moment(never, "--until")


def test_settings(tmp_path):
    assert parse_settings(["min_rise=0.2", "surge_labels=bad,worse"]) == {
        "min_rise": 0.2, "surge_labels": ("bad", "worse"),
    }  # fmt: skip
    with pytest.raises(UserError, match="min_rise"):
        parse_settings(["min_ris=0.2"])
    with pytest.raises(UserError, match="--set min_rows has no value"):
        parse_settings(["min_rows"])
    with pytest.raises(UserError, match="since 1d is not before until 7d"):
        run_monitor(tmp_path, "opinions", "1d", "7d", {})
    with pytest.raises(UserError, match="min_rows: Input should be greater than or equal to 20"):
        parse_settings(["min_rows=3"])


LINE = {
    "name": "opinions", "version": 2, "window": {"start": 0.0, "end": 3600.0}, "rows": 1200, "other_versions": 0,
    "tests": [
        {
            "name": "input drift", "rows": 500, "reference_rows": 400, "effect": 0.83, "threshold": 0.6,
            "p_value": 0.0001, "level": 0.00025, "alarm": True, "detail": {"statistic": "auc"},
        }
    ],
    "surge": {
        "windows": 3, "tests": 9, "learning": 0,
        "table": [
            {
                "topic": "bags|food", "label": "negative", "time": 0.0, "rows": 40, "count": 30, "share": 0.75,
                "expected": 0.3, "p_value": 1e-9, "level": 1e-4, "state": "alert",
            }
        ],
    },
    "quality": None, "estimate": {"accuracy": 0.71, "reference": 0.78}, "alarms": ["drift", "surge"],
    "alerts": [{"event": "drift", "reason": "input drift: auc 0.83, alarm from 0.60"}], "notes": ["a note"],
    "settings": {"min_rise": 0.1},
}  # fmt: skip


def test_text_from_data_is_text():
    assert plain("![](http://x) a\n| b <i>[c](d)") == r"\!\[\]\(http://x\) a \| b \<i\>\[c\]\(d\)"


def test_what_is_shown():
    said = "\n".join(text(LINE))
    assert "opinions version 2: 1,200 rows" in said and "ALARM" in said and "note: a note" in said
    assert "accuracy as estimated without labels: 0.710 (released 0.780)" in said
    assert one_line(LINE) == "input drift: auc 0.83, alarm from 0.60"
    assert [row["alarm"] for row in table(LINE)] == ["ALARM", "ALARM"]
    page = markdown(LINE)
    assert page.startswith("# Alarm: drift, surge") and "surge of negative in bags\\|food" in page
    quiet = {**LINE, "alarms": [], "alerts": [], "tests": [], "surge": {**LINE["surge"], "table": []}}
    assert one_line(quiet) == "1,200 rows, no alarm" and "no alarm" in "\n".join(text(quiet))


def test_nothing_from_data_moves_the_cursor():
    assert visible("\x1b[31mEVIL\n no alarm, größer") == r"\x1b[31mEVIL\n no alarm, größer"
