"""The registry's reads and small writes without importing mlflow, which takes seconds: SQLite's tables or plain REST.

Both classes have the four writing methods of `MlflowClient` that move aliases and tags, doing what it does (mlflow
3.17), and reading methods of their own. Whatever is not as known (another schema, workspaces, other ways to log in to a
server) is left to the real client: `open_registry` decides.
"""

import base64
import contextlib
import http.client
import json
import os
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from stillhouse.errors import StillhouseError, UserError
from tasks.mlflow_home import database_file, open_client, ready_database, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

Record = dict[str, Any]
"""One version: `version`, `tags`, `source`, `created_ms`."""
COLUMNS = {
    "registered_models": {"name", "creation_time", "last_updated_time", "description", "workspace"},
    "registered_model_aliases": {"alias", "version", "name", "workspace"},
    "model_version_tags": {"key", "value", "name", "version", "workspace"},
}
"""Tables that are written, or whose meaning matters, as they are known."""
NEEDED = {
    "model_versions": {"name", "version", "creation_time", "source", "current_stage", "workspace"},
    "logged_models": {"model_id", "artifact_location"},
}
DELETED = "Deleted_Internal"
OTHER_LOGINS = (
    "MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_AWS_SIGV4", "MLFLOW_TRACKING_INSECURE_TLS",
    "MLFLOW_TRACKING_SERVER_CERT_PATH", "MLFLOW_TRACKING_CLIENT_CERT_PATH", "MLFLOW_WORKSPACE",
)  # fmt: skip
"""With one of these set, MLflow's own client knows better how to ask the server."""
TIMEOUT_SECONDS = 60


def open_registry(home: Path) -> "SqliteRegistry | HttpRegistry | MlflowClient":
    """The lightest client that can read and write the registry of this home."""
    path, uri = database_file(home), tracking_uri(home)
    if any(os.environ.get(name) for name in ("MLFLOW_ENABLE_WORKSPACES", *OTHER_LOGINS)):
        return open_client(home)
    if path is not None and path.exists():
        ready_database(home, path)
        return SqliteRegistry(path) if _is_as_known(path) else open_client(home)
    plain = uri.startswith(("http://", "https://")) and "@" not in urlsplit(uri).netloc
    if plain and not (Path.home() / ".mlflow" / "credentials").exists():
        return HttpRegistry(uri)
    return open_client(home)


def _is_as_known(path: Path) -> bool:
    address = f"file:{quote(str(path))}?mode=rw"
    with contextlib.closing(sqlite3.connect(address, uri=True, timeout=TIMEOUT_SECONDS)) as database:
        there = {
            table: {row[1] for row in database.execute(f"PRAGMA table_info({table})")} for table in COLUMNS | NEEDED
        }
    return all(there[table] == columns for table, columns in COLUMNS.items()) and all(
        columns <= there[table] for table, columns in NEEDED.items()
    )


class SqliteRegistry:
    """The registry in a database of this home."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.contextmanager
    def _open(self, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        # Also to read: what a killed process left half written is undone by whoever opens it next.
        address = f"file:{quote(str(self.path))}?mode=rw"
        database = sqlite3.connect(address, uri=True, timeout=TIMEOUT_SECONDS, isolation_level=None)
        with contextlib.closing(database):
            database.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            yield database
            database.execute("COMMIT")  # what raises before it, leaves nothing

    def aliases(self, name: str | None = None) -> dict[str, dict[str, int]]:
        """{registered name: {alias: version}} of all models, or of one."""
        with self._open() as database:
            names = database.execute("SELECT name FROM registered_models WHERE workspace = 'default'").fetchall()
            found: dict[str, dict[str, int]] = {row[0]: {} for row in names if name in (None, row[0])}
            rows = database.execute(
                "SELECT name, alias, version FROM registered_model_aliases WHERE workspace = 'default'"
            )
            for model, alias, version in rows:
                if model in found:
                    found[model][alias] = int(version)
        return found

    def versions(self, name: str) -> list[Record]:
        with self._open() as database:
            tags: dict[int, dict[str, str]] = {}
            for version, key, value in database.execute(
                "SELECT version, key, value FROM model_version_tags WHERE workspace = 'default' AND name = ?", (name,)
            ):
                tags.setdefault(int(version), {})[key] = value
            rows = database.execute(
                "SELECT version, source, creation_time FROM model_versions "
                "WHERE workspace = 'default' AND name = ? AND current_stage IS NOT ?",
                (name, DELETED),
            )
            return [
                {"version": int(v), "tags": tags.get(int(v), {}), "source": source or "", "created_ms": int(made or 0)}
                for v, source, made in rows
            ]

    def location(self, model_id: str) -> str:
        with self._open() as database:
            row = database.execute(
                "SELECT artifact_location FROM logged_models WHERE model_id = ?", (model_id,)
            ).fetchone()
        return row[0] if row else ""

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        self._write(
            "INSERT INTO registered_model_aliases (workspace, name, alias, version) VALUES ('default', ?, ?, ?) "
            "ON CONFLICT (workspace, name, alias) DO UPDATE SET version = excluded.version",
            (name, alias, int(version)), name, version,
        )  # fmt: skip

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        self._write(
            "DELETE FROM registered_model_aliases WHERE workspace = 'default' AND name = ? AND alias = ?", (name, alias)
        )

    def set_model_version_tag(self, name: str, version: str, key: str, value: Any) -> None:
        self._write(
            "INSERT INTO model_version_tags (workspace, name, version, key, value) VALUES ('default', ?, ?, ?, ?) "
            "ON CONFLICT (workspace, key, name, version) DO UPDATE SET value = excluded.value",
            (name, int(version), key, str(value)), name, version,
        )  # fmt: skip

    def delete_model_version_tag(self, name: str, version: str, key: str) -> None:
        self._write(
            "DELETE FROM model_version_tags WHERE workspace = 'default' AND name = ? AND version = ? AND key = ?",
            (name, int(version), key),
        )

    def _write(self, statement: str, values: tuple[Any, ...], name: str = "", version: str = "") -> None:
        """One transaction; with a version, only if that exists."""
        with self._open(write=True) as database:
            there = database.execute(
                "SELECT 1 FROM model_versions WHERE workspace = 'default' AND name = ? AND version = ? "
                "AND current_stage IS NOT ?",
                (name, int(version or 0), DELETED),
            ).fetchone()
            if version and not there:
                raise UserError(f'"{name}" has no version {version}', "`stillhouse models` lists what there is")
            database.execute(statement, values)


class HttpRegistry:
    """The registry of an MLflow server (https://mlflow.org/docs/latest/api_reference/rest-api.html)."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")

    def aliases(self, name: str | None = None) -> dict[str, dict[str, int]]:
        """{registered name: {alias: version}} of all models, or of one."""
        models = self._pages("registered-models/search", "registered_models", named(name) if name else "")
        return {
            model["name"]: {one["alias"]: int(one["version"]) for one in model.get("aliases", [])} for model in models
        }

    def versions(self, name: str) -> list[Record]:
        return [
            {
                "version": int(found["version"]), "source": found.get("source", ""),
                "tags": {tag["key"]: tag.get("value", "") for tag in found.get("tags", [])},
                "created_ms": int(found.get("creation_timestamp", 0)),
            }
            for found in self._pages("model-versions/search", "model_versions", named(name))
        ]  # fmt: skip

    def location(self, model_id: str) -> str:
        try:
            return self._ask("GET", f"logged-models/{quote(model_id)}")["model"]["info"]["artifact_uri"]
        except _Missing:  # one lost model is no reason not to see the others
            return ""

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        self._ask("POST", "registered-models/alias", {"name": name, "alias": alias, "version": str(version)})

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        self._ask("DELETE", "registered-models/alias", {"name": name, "alias": alias})

    def set_model_version_tag(self, name: str, version: str, key: str, value: Any) -> None:
        body = {"name": name, "version": str(version), "key": key, "value": str(value)}
        self._ask("POST", "model-versions/set-tag", body)

    def delete_model_version_tag(self, name: str, version: str, key: str) -> None:
        self._ask("DELETE", "model-versions/delete-tag", {"name": name, "version": str(version), "key": key})

    def _pages(self, path: str, what: str, condition: str) -> list[Record]:
        found, token = [], ""
        while True:
            query = {"filter": condition, "page_token": token, "max_results": "100"}
            page = self._ask("GET", f"{path}?{urlencode({k: v for k, v in query.items() if v})}")
            found += page.get(what, [])
            token = page.get("next_page_token", "")
            if not token:
                return found

    def _ask(self, verb: str, path: str, body: Record | None = None) -> Record:
        request = urllib.request.Request(
            f"{self.uri}/api/2.0/mlflow/{path}", json.dumps(body).encode() if body else None,
            {"Content-Type": "application/json", **_login()}, method=verb,
        )  # fmt: skip
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            said = error.read().decode("utf-8", "replace")
            with contextlib.suppress(ValueError, TypeError, AttributeError):
                said = json.loads(said).get("message", said)
            kinds = {400: UserError, 401: UserError, 403: UserError, 404: _Missing}
            raise kinds.get(error.code, StillhouseError)(
                f"the MLflow server {self.uri} said {error.code}: {said[:300]}"
            ) from None
        except (OSError, ValueError, http.client.HTTPException) as error:  # the last: an answer that broke off
            raise StillhouseError(
                f"the MLflow server {self.uri} does not answer: {error}", "Start it, or unset MLFLOW_TRACKING_URI"
            ) from None


class _Missing(UserError):
    """The server does not have it."""


def named(name: str) -> str:
    """The condition of a search for one model."""
    return f'name = "{name}"' if "'" in name else f"name = '{name}'"


def _login() -> dict[str, str]:
    """As MLflow reads them: a user and password, else a token."""
    user, password = (os.environ.get(f"MLFLOW_TRACKING_{name}") for name in ("USERNAME", "PASSWORD"))
    if user and password:
        return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}
