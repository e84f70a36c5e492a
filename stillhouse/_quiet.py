"""transformers without its progress bars and tables."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no table of newly initialised heads while transformers loads or saves.

    The table is dropped because who loads a model judges the missing weights.
    """
    from transformers.utils import logging as bars

    logger = logging.getLogger("transformers.modeling_utils")
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    logger.addFilter(_is_no_load_report)
    try:
        yield
    finally:
        logger.removeFilter(_is_no_load_report)
        if shown:
            bars.enable_progress_bar()


def _is_no_load_report(record: logging.LogRecord) -> bool:
    return "LOAD REPORT" not in record.getMessage()
