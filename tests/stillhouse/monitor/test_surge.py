"""Surges: the predictive distribution, its false alarms on overdispersed streams, one alert for one surge."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from scipy.stats import betabinom, binom

from stillhouse.monitor.surge import _tail, learn_baseline, overall_p, topic_p
from stillhouse.monitor.watch import OVERALL, SurgeSettings, count, watch

HOUR = 3600.0


def test_the_tail_is_that_of_scipy():
    assert _tail(40, 25, 0.4, 0.0) == pytest.approx(binom.sf(24, 40, 0.4))
    assert _tail(40, 25, 0.4, 0.1) == pytest.approx(betabinom.sf(24, 40, 0.4 * 9, 0.6 * 9))
    assert _tail(40, 0, 0.4, 0.1) == 1.0


def windows(generator, count, rows, share, correlation=0.0):
    """Hits in `count` windows whose own share varies with this intra-class correlation."""
    if correlation:
        strength = 1 / correlation - 1
        share = generator.beta(share * strength, (1 - share) * strength, size=count)
    return generator.binomial(rows, share, size=count)


def test_overdispersion_is_estimated_from_above_and_not_invented():
    generator = np.random.default_rng(0)
    rows = np.full((200, 1), 100)
    even = learn_baseline(rows, windows(generator, 200, 100, 0.3)[:, None])
    uneven = learn_baseline(rows, windows(generator, 200, 100, 0.3, 0.05)[:, None])
    assert even.within < 0.005 and 0.045 < uneven.within < 0.08
    assert even.expected[0] == pytest.approx(0.3, abs=0.02)


def test_a_new_topic_leans_on_the_others_and_is_given_room():
    generator = np.random.default_rng(0)
    shares = [0.2, 0.4, 0.6, 0.4, 0.3]
    hits = np.stack([windows(generator, 60, 40, share) for share in shares] + [np.zeros(60, int)], axis=1)
    rows = np.full((60, 6), 40)
    rows[:, 5] = 0
    baseline = learn_baseline(rows, hits)
    assert baseline.expected[5] == pytest.approx(baseline.share, abs=1e-6)
    assert topic_p(baseline, 5, 40, 28) > 0.02, "70 % negative may be this topic's way"
    assert topic_p(baseline, 0, 40, 28) < 1e-6, "but not that of a topic which had 20 % in 60 windows"


@pytest.mark.parametrize("correlation", [0.0, 0.05])
def test_false_alarms_on_steady_streams_stay_at_the_stated_rate(correlation):
    generator, alarms, plain, runs = np.random.default_rng(3), 0, 0, 1200
    for _ in range(runs // 40):
        hits = windows(generator, 80, 100, 0.3, correlation)[:, None]
        rows = np.full_like(hits, 100)
        for window in range(40, 80):
            baseline = learn_baseline(rows[window - 40 : window], hits[window - 40 : window])
            alarms += overall_p(baseline, rows[window], int(hits[window, 0]))[0] <= 0.02
            plain += binom.sf(hits[window, 0] - 1, 100, hits[window - 40 : window].mean() / 100) <= 0.02
    assert alarms <= binom.ppf(0.9995, runs, 0.02), alarms
    if correlation:
        assert plain > 4 * 0.02 * runs, "what a binomial test would have said"


def stream(hours, topics, seed=0, per=40):
    """Rows of a steady stream, `per` an hour and topic, `topics` name → share of "bad"."""
    generator = np.random.default_rng(seed)
    frames = []
    for name, share in topics.items():
        times = generator.uniform(0, hours * HOUR, size=hours * per)
        labels = np.where(generator.random(hours * per) < share, "bad", "good")
        frames.append(pd.DataFrame({"time": times, "topic": name, "label": labels}))
    return pd.concat(frames).sort_values("time", ignore_index=True)


def surge(frame, topic, start, hours, share, seed=1):
    """Let `share` of the good rows of a topic be bad from hour `start` on."""
    generator = np.random.default_rng(seed)
    hit = (frame["topic"] == topic) & frame["time"].between(start * HOUR, (start + hours) * HOUR)
    hit &= generator.random(len(frame)) < share
    return frame.assign(label=frame["label"].mask(hit, "bad"))


def run(frame, state, settings, start=0.0, end=np.inf, step=None):
    """Alerts of a run over all windows, or of one run for every `step` seconds."""
    edges = [start, *np.arange(start + step, frame["time"].max(), step), np.inf] if step else [start, end]
    found = []
    for low, high in pairwise(edges):
        before = frame[frame["time"] < high]
        whole = count(before["time"].to_numpy(), before["topic"], before["label"], ["bad"], settings.window)
        fresh = before["time"].to_numpy() >= low
        new = count(before["time"].to_numpy(), before["topic"], before["label"], ["bad"], settings.window, fresh)
        found.append(watch(whole, new, state, settings))
    return found


def alerts(found):
    return [(a["topic"], round(a["time"] / HOUR)) for f in found for a in f.alerts]


TOPICS = {"bags": 0.3, "food": 0.2, "crew": 0.1}


def test_an_injected_surge_is_told_once_and_named():
    settings = SurgeSettings(window=HOUR)
    frame = surge(stream(72, TOPICS), "bags", 40, 5, 0.6)
    state = {}
    found = run(frame, state, settings, step=HOUR)
    assert alerts(found) == [("bags", 40)]
    assert [row["state"] for f in found for row in f.table].count("going on") == 4
    assert alerts(run(frame, state, settings, start=40 * HOUR)) == [], "the same windows again"
    assert alerts(run(frame, {}, settings)) == [("bags", 40)], "one run over everything says the same"


def test_a_second_surge_after_the_cool_down_is_told_again_and_within_it_is_not():
    settings = SurgeSettings(window=HOUR, cool_down=12 * HOUR)
    frame = surge(surge(stream(96, TOPICS), "bags", 30, 2, 0.7), "bags", 36, 2, 0.7)
    assert alerts(run(frame, {}, settings)) == [("bags", 30)]
    frame = surge(surge(stream(96, TOPICS), "bags", 30, 2, 0.7), "bags", 60, 2, 0.7)
    assert alerts(run(frame, {}, settings)) == [("bags", 30), ("bags", 60)]


def test_what_stays_is_the_new_level():
    settings = SurgeSettings(window=HOUR, cool_down=12 * HOUR)
    frame = surge(stream(120, TOPICS, per=80), "bags", 40, 80, 0.6)
    found = run(frame, {}, settings)
    assert alerts(found) == [("bags", 40)]
    assert "new level" in [row["state"] for f in found for row in f.table]
    again = surge(frame, "bags", 100, 3, 0.9)
    assert alerts(run(again, {}, settings)) == [("bags", 40), ("bags", 100)]


def test_a_rise_everywhere_is_one_alert_with_its_topics():
    settings = SurgeSettings(window=HOUR)
    frame = stream(72, {f"t{i}": 0.3 for i in range(8)}, per=15)
    for i in range(8):
        frame = surge(frame, f"t{i}", 40, 3, 0.25, seed=i)
    found = [alert for f in run(frame, {}, settings) for alert in f.alerts]
    assert [alert["topic"] for alert in found] == [OVERALL]


def test_another_mix_of_topics_is_no_surge():
    settings = SurgeSettings(window=HOUR)
    frame = stream(72, {"calm": 0.1, "angry": 0.6})
    loud = stream(72, {"angry": 0.6}, seed=5, per=200)
    frame = pd.concat([frame, loud[loud["time"] > 40 * HOUR]]).sort_values("time", ignore_index=True)
    assert alerts(run(frame, {}, settings)) == []


def test_few_rows_few_windows_and_small_rises_are_no_alarm():
    frame = surge(stream(30, TOPICS), "bags", 20, 2, 0.7)
    assert alerts(run(frame, {}, SurgeSettings(window=HOUR, min_windows=40))) == []
    assert alerts(run(frame, {}, SurgeSettings(window=HOUR, min_count=1000))) == []
    assert alerts(run(frame, {}, SurgeSettings(window=HOUR, min_rise=0.7))) == []
    assert alerts(run(frame, {}, SurgeSettings(window=HOUR))) == [("bags", 20)]


def test_a_shift_that_stays_is_told_once_however_short_the_new_level_still_is():
    frame = surge(stream(400, {"bags": 0.3}), "bags", 300, 100, 0.5)
    assert alerts(run(frame, {}, SurgeSettings(window=HOUR, cool_down=12 * HOUR))) == [(OVERALL, 300)]


def test_a_strong_rise_everywhere_is_one_alert_too():
    settings = SurgeSettings(window=HOUR)
    frame = stream(72, {f"t{i}": 0.2 for i in range(6)}, per=60)
    for i in range(6):
        frame = surge(frame, f"t{i}", 40, 3, 0.6, seed=i)
    (found,) = [alert for f in run(frame, {}, settings, step=HOUR) for alert in f.alerts]
    assert found["topic"] == OVERALL and len(found["with"]) == 6


def test_what_was_told_long_ago_is_forgotten():
    settings = SurgeSettings(window=HOUR, baseline=48 * HOUR, cool_down=12 * HOUR)
    state = {}
    run(surge(stream(60, TOPICS), "bags", 40, 2, 0.7), state, settings)
    assert list(state) == ["bags\tbad"]
    run(stream(140, TOPICS), state, settings, start=60 * HOUR)
    assert state == {}


def test_a_late_window_before_a_told_surge_belongs_to_it_only_within_the_cool_down():
    settings = SurgeSettings(window=HOUR, cool_down=12 * HOUR)
    frame = surge(surge(stream(96, TOPICS), "bags", 30, 1, 0.7), "bags", 60, 1, 0.7)
    for late, told in ((30, [("bags", 30)]), (60, [])):
        state = {}
        known = frame[frame["time"] // HOUR != late]
        first = run(known, state, settings)
        assert alerts(first) == [("bags", 90 - late)]
        times, topics, labels = frame["time"].to_numpy(), frame["topic"], frame["label"]
        whole = count(times, topics, labels, ["bad"], HOUR)
        found = watch(whole, count(times, topics, labels, ["bad"], HOUR, times // HOUR == late), state, settings)
        assert alerts([found]) == (told or [("bags", 60)])
        assert state["bags\tbad"]["from"] == 60, "the newest one stays the known one"
    near = surge(frame, "bags", 55, 1, 0.7)
    state = {}
    run(near[near["time"] // HOUR != 55], state, settings)
    times, topics, labels = near["time"].to_numpy(), near["topic"], near["label"]
    whole = count(times, topics, labels, ["bad"], HOUR)
    found = watch(whole, count(times, topics, labels, ["bad"], HOUR, times // HOUR == 55), state, settings)
    assert alerts([found]) == [] and 55 in state["bags\tbad"]["windows"]
