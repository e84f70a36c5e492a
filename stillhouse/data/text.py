"""Texts with one label each: read, cleaned, deduplicated, split."""

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from stillhouse.errors import UserError
from stillhouse.method import Job, Method, Metrics, Source


class Text(Method):
    """Prepare labelled texts: repair, clean, drop duplicates, split by content into training, validation and test.

    A row's split follows from its text and the seed alone: new rows move no old one, the order of rows is irrelevant.
    """

    slots: ClassVar[dict[str, str]] = {"previous": "data?"}
    output: ClassVar[str] = "data"
    external: ClassVar[dict[str, str]] = {"source": "data", "validation": "data", "test": "data"}
    libraries: ClassVar[tuple[str, ...]] = ("datasketch", "pyarrow")

    source: str
    """A CSV, TSV, JSONL or Parquet file, a directory (train, validation and test files, or one directory of .txt
    files per label), a URL, `pkg://package/inside/path` or `hub:owner/name[@revision]`."""
    validation: str | None = None
    """Validation rows of your own, used as given; without it, 10% of the source by content."""
    test: str | None = None
    """Test rows of your own, used as given; without it, 10% of the source by content."""
    text: str = "text"
    """Column of the text."""
    label: str = "label"
    """Column of the label."""
    format: Literal["csv", "tsv", "jsonl", "parquet", "folders", "hub"] | None = None
    """Format of the source; by default from its name."""
    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    """Between the columns of a CSV or TSV file; by default `,` or a tab."""
    column_names: list[str] | None = None
    """Names of the columns of a CSV or TSV file without a header line."""
    subset: str | None = None
    """Configuration of a Hub data set that has several."""
    given_splits: bool = True
    """Use the validation and test splits that a Hub data set or directory brings; false: pool, split by content."""
    normalize: Literal["NFC", "NFKC"] | None = "NFC"
    """Unicode normal form of the texts."""
    labels: dict[str, str | None] | None = None
    """New names of labels, `{old: new}`; null drops the rows of that label; labels not named stay."""
    confidence: str | None = None
    """Column of the annotators' confidence, a number."""
    min_confidence: float = 0.0
    """Rows with less confidence are dropped; rows without any are kept."""
    near_duplicates: bool = True
    """Drop near-duplicates, so that no held-out row has a near copy in training."""
    near_duplicate_threshold: float = Field(default=0.9, ge=0.6, le=1.0)
    """Share of common five-character pieces (Jaccard similarity) from which two texts are near-duplicates."""
    licence: str | None = None
    """Licence of the data, for the model card: an SPDX name such as CC-BY-4.0, or a sentence."""
    language: str | None = None
    """Language of the data, for the model card: a code such as en."""
    max_train_rows: int = Field(default=0, ge=0)
    """Train on a sample of this size, classes in proportion; 0: all rows."""

    @field_validator("labels", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        """`{0: bad, 1: good}`: YAML reads such keys as numbers."""
        if not isinstance(value, dict):
            return value
        return {_name(old): None if new is None else _name(new) for old, new in value.items()}

    def check(self, filled: set[str]) -> None:
        if self.min_confidence and self.confidence is None:
            raise UserError("min_confidence is set, confidence is not", "Set confidence to the name of the column")
        if self.text == self.label:
            raise UserError(f'text and label are both "{self.text}"', "Name two columns")
        if (self.format == "hub") != self.source.startswith("hub:") and self.format is not None:
            raise UserError(f'format "{self.format}" does not fit the source {self.source}', "Leave format out")

    def check_sources(self, sources: dict[str, Source]) -> None:
        from stillhouse.data._intake import check_columns
        from stillhouse.data._text import text_preparation

        check_columns(sources, text_preparation(self))

    def run(self, job: Job) -> Metrics:
        from stillhouse.data._prepare import prepare
        from stillhouse.data._text import text_preparation

        return prepare(job, text_preparation(self))


def _name(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value
