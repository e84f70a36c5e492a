"""A run's log without tracebacks for errors that say the fix themselves."""

import logging
import os
from typing import Any

from prefect import State
from prefect.logging import get_run_logger
from prefect.states import Failed

from stillhouse.errors import StillhouseError

LOGGERS = ("prefect.flow_runs", "prefect.task_runs", "prefect.engine")
REPEATED = ("Engine execution exited", "Task run failed with")
"""Lines of Prefect about what the run's own log says already."""


class OneLine(logging.Filter):
    """Replaces the traceback of a `StillhouseError` by its message; `STILLHOUSE_DEBUG` keeps it."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, StillhouseError) or os.environ.get("STILLHOUSE_DEBUG"):
            return True
        if record.getMessage().startswith(REPEATED):
            return False
        record.msg, record.args, record.exc_info, record.exc_text = str(error), (), None, None
        return True


def one_line_errors() -> None:
    """For all runs of this process; calling it again changes nothing."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(there, OneLine) for there in logger.filters):
            logger.addFilter(OneLine())


def failed_state(error: StillhouseError) -> State[Any]:
    """What a flow returns: a failure whose message says the fix; raised instead, its log would end in a traceback."""
    get_run_logger().error(str(error))
    return Failed(message=str(error), data=error)
