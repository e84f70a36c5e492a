"""Sentences with one tag for each word: read, tags made BIO, deduplicated, split."""

from typing import ClassVar, Literal

from pydantic import Field

from stillhouse.errors import UserError
from stillhouse.method import Job, Method, Metrics, Source


class Tokens(Method):
    """Prepare tagged sentences (entities): tags become BIO, duplicates go, the split follows content.

    Words and tags stay as they are, whatever the tokenizer: aligning them is the training stage's work.
    """

    slots: ClassVar[dict[str, str]] = {"previous": "data?"}
    output: ClassVar[str] = "data"
    external: ClassVar[dict[str, str]] = {"source": "data", "validation": "data", "test": "data"}
    libraries: ClassVar[tuple[str, ...]] = ("datasketch", "pyarrow")

    source: str
    """A CoNLL file (a word and its tag on each line, sentences apart by blank lines), a directory with train,
    validation (or dev) and test files, a JSONL or Parquet file, a URL, `pkg://…` or `hub:owner/name[@revision]`."""
    validation: str | None = None
    """Validation sentences of your own, used as given; without it, 10% of the source by content."""
    test: str | None = None
    """Test sentences of your own, used as given; without it, 10% of the source by content."""
    format: Literal["conll", "jsonl", "parquet", "hub"] | None = None
    """Format of the source; by default from its name (.jsonl and .parquet, anything else is CoNLL)."""
    word_column: int = 0
    """Position of the word on a CoNLL line; negative counts from the end."""
    tag_column: int = -1
    """Position of the tag on a CoNLL line; negative counts from the end."""
    words: str = "tokens"
    """Column of the words in a Hub data set, JSONL or Parquet file."""
    tags: str = "ner_tags"
    """Column of the tags in a Hub data set, JSONL or Parquet file."""
    subset: str | None = None
    """Configuration of a Hub data set that has several."""
    given_splits: bool = True
    """Use the validation and test splits that a Hub data set or directory brings; false: pool, split by content."""
    normalize: Literal["NFC", "NFKC"] | None = "NFC"
    """Unicode normal form of the words."""
    near_duplicates: bool = True
    """Drop near-duplicates, so that no held-out sentence has a near copy in training."""
    near_duplicate_threshold: float = Field(default=0.9, ge=0.6, le=1.0)
    """Share of common five-character pieces (Jaccard similarity) from which two sentences are near-duplicates."""
    licence: str | None = None
    """Licence of the data, for the model card: an SPDX name such as CC-BY-4.0, or a sentence."""
    language: str | None = None
    """Language of the data, for the model card: a code such as en."""
    max_train_rows: int = Field(default=0, ge=0)
    """Train on a sample of this many sentences; 0: all."""

    def check(self, filled: set[str]) -> None:
        if self.word_column == self.tag_column:
            raise UserError(f"word_column and tag_column are both {self.word_column}", "Name two columns")
        if self.words == self.tags:
            raise UserError(f'words and tags are both "{self.words}"', "Name two columns")
        if (self.format == "hub") != self.source.startswith("hub:") and self.format is not None:
            raise UserError(f'format "{self.format}" does not fit the source {self.source}', "Leave format out")

    def check_sources(self, sources: dict[str, Source]) -> None:
        from stillhouse.data._intake import check_columns
        from stillhouse.data._tokens import token_preparation

        check_columns(sources, token_preparation(self))

    def run(self, job: Job) -> Metrics:
        from stillhouse.data._prepare import prepare
        from stillhouse.data._tokens import token_preparation

        return prepare(job, token_preparation(self))
