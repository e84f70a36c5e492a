"""The MLflow of a home: where it is, a client for it, its first use, and the state of its database.

Importing this module does not import mlflow: many questions are answered without it (`tasks.registry`).
"""

import contextlib
import functools
import hashlib
import logging
import os
import sqlite3
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from stillhouse.errors import UserError
from tasks.running_up import running

if TYPE_CHECKING:
    from mlflow import MlflowClient

DATABASE = "mlflow.db"
ARTIFACTS = "mlartifacts"
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_UV_AUTO_DETECT": "false",  # a uv.lock in the working directory has nothing to do with the model
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # the default waits minutes for a server that is down
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # standard output is the command's own
    "GIT_PYTHON_REFRESH": "quiet",
}
"""What MLflow must find in the environment before it is imported; a user's own setting stays."""
ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)
"""Where MLflow keeps addresses of files: table and column."""


def tracking_uri(home: Path) -> str:
    """`$MLFLOW_TRACKING_URI`, else the SQLite database in the home."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home.resolve() / DATABASE}"


def database_file(home: Path) -> Path | None:
    """The SQLite file behind `tracking_uri`; None when it is another database, or a server.

    Except the server of this home's own `up`: it writes the file of this home (docs/decisions/0007).
    """
    uri = tracking_uri(home)
    prefix, _, path = uri.partition(":///")
    if prefix == "sqlite":
        return Path(path) if path and path != ":memory:" else None
    up = running(home)
    return home.resolve() / DATABASE if up and up["mlflow"] == uri.rstrip("/") else None


def is_fresh(home: Path) -> bool:
    """Nothing was ever recorded here: known without importing mlflow."""
    path = database_file(home)
    return path is not None and not path.exists()


def database_state(home: Path) -> list[Any] | None:
    """What changes with every commit to the database, from its file header; None when that cannot be told cheaply.

    Bytes 24-27 of an SQLite file count its transactions (https://www.sqlite.org/fileformat.html, 1.3.7) unless it is
    in WAL mode (bytes 18-19 are 2); a journal beside it is a transaction under way, or one that a kill left half done.
    """
    path = database_file(home)
    try:
        if path is None or path.with_name(f"{path.name}-journal").exists():
            return None
        with path.open("rb") as file:
            header = file.read(28)
            status = os.fstat(file.fileno())
    except OSError:
        return None
    if len(header) < 28 or header[18:20] != b"\x01\x01":
        return None
    return [str(path), status.st_ino, status.st_size, status.st_mtime_ns, int.from_bytes(header[24:28], "big")]


def lock(home: Path, name: str) -> FileLock:
    """A kernel lock of this home; it is gone with its holder. Re-entrant only through the same object."""
    directory = home / "locks"
    directory.mkdir(parents=True, exist_ok=True)
    return FileLock(directory / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.lock")


def quiet() -> None:
    """No telemetry, and no chatter of MLflow and Alembic below warnings."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


@contextlib.contextmanager
def no_warnings() -> Iterator[None]:
    """Around calls whose warnings only MLflow's authors can mend (deprecated uses of pandas, SQLAlchemy, pydantic)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def load_mlflow() -> ModuleType:
    """The module `mlflow`, imported quietly."""
    quiet()
    with no_warnings():
        import mlflow
        import mlflow.store.tracking.sqlalchemy_store
    return mlflow


def load_pyfunc() -> ModuleType:
    """The module `mlflow.pyfunc`, likewise; it takes another second."""
    load_mlflow()
    with no_warnings():
        import mlflow.pyfunc
        import mlflow.pyfunc.model
    return mlflow.pyfunc


def open_client(home: Path) -> "MlflowClient":
    """A client for the tracking server and registry of this home; its database is made at the first use."""
    return _client(home, tracking_uri(home))


@functools.lru_cache(maxsize=16)
def _client(home: Path, uri: str) -> "MlflowClient":
    mlflow = load_mlflow()
    path = database_file(home)
    if path is not None:
        ready_database(home, path)
    return mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)


def ready_database(home: Path, path: Path) -> None:
    """Make the SQLite database where it is missing (that alone imports mlflow), else see that it can be used here."""
    if not path.exists():
        with lock(home, "mlflow-first-use"):
            if not path.exists():
                _create_database(path, home / ARTIFACTS)
    _check_readable(path)
    if path == home.resolve() / DATABASE:  # another's database keeps its own addresses
        with contextlib.suppress(sqlite3.OperationalError):  # a home that can only be read is read as it is
            _bring_along(path, home)


def _check_readable(path: Path) -> None:
    """Said at once and in one line: MLflow would try again for minutes, and print a traceback each time."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=rw", uri=True)) as database:
            database.execute("SELECT name FROM sqlite_master LIMIT 1").fetchall()
    except sqlite3.Error as error:
        raise UserError(
            f"the MLflow database {path} cannot be read: {error}",
            "Bring back a copy of it, or move it away: the next run begins a new one",
        ) from None


def _bring_along(path: Path, home: Path) -> None:
    """After a home was moved or copied, point its database to its own files: MLflow keeps absolute addresses."""
    here = (home.resolve() / ARTIFACTS).as_uri()
    with contextlib.closing(sqlite3.connect(path, timeout=60)) as database, database:
        # The experiment that MLflow makes with the database (id 0) lies directly below the artifacts' root.
        first = database.execute("SELECT artifact_location FROM experiments WHERE experiment_id = 0").fetchone()
        before = first[0].rpartition("/")[0] if first and first[0] else here
        if before == here or not before.endswith(f"/{ARTIFACTS}"):
            return
        for table, column in ADDRESSES:
            database.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                (here, len(before) + 1, len(before) + 1, f"{before}/"),
            )


def _create_database(path: Path, artifacts: Path) -> None:
    """Build the database beside its place and move it there: a kill in between leaves none, not half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{path.name}.*"):
        left.unlink()
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    load_mlflow()
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(f"sqlite:///{beside}", artifacts.resolve().as_uri())
    store.engine.dispose()
    os.replace(beside, path)


@contextlib.contextmanager
def as_default(home: Path) -> Iterator[None]:
    """Around a call that looks up logged models at MLflow's process-wide address, whatever address its client has."""
    if "MLFLOW_TRACKING_URI" in os.environ:
        yield
        return
    os.environ["MLFLOW_TRACKING_URI"] = tracking_uri(home)
    try:
        yield
    finally:
        os.environ.pop("MLFLOW_TRACKING_URI", None)


def experiment_id(home: Path, name: str) -> str:
    """The id of the experiment `name`, made where it is missing, with its artifacts in the home."""
    from mlflow.exceptions import MlflowException

    client = open_client(home)
    found = client.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        return found.experiment_id
    location = None
    if database_file(home) is not None:
        directory = hashlib.sha256(name.encode()).hexdigest()[:12]
        location = (home.resolve() / ARTIFACTS / directory).as_uri()
    try:
        return client.create_experiment(name, artifact_location=location)
    except MlflowException:  # another process was faster
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return found.experiment_id
