"""Digest of the code behind a method: every `stillhouse` module that it can reach, comments and docstrings aside.

The closure is static (read from the syntax trees, function-level imports included), so that nothing is imported to
compute a key, and a change anywhere in it is a miss that names the module. Modules that only move artifacts around
are left out: they cannot change what a method computes.
"""

import ast
import hashlib
from functools import lru_cache
from pathlib import Path

from stillhouse.parsing import parsed

ROOT = Path(__file__).parent
PACKAGE = ROOT.name
INFRASTRUCTURE = {
    f"{PACKAGE}.{name}"
    for name in (
        "artifact", "code_digest", "errors", "events", "files", "home", "keys",
        "launcher", "method", "methods", "parsing", "source", "store", "upkeep", "worker",
    )
}  # fmt: skip


def code_digests(module: str) -> dict[str, str]:
    """`{module: digest}` for `module` and everything of this package that it imports, directly or not."""
    found: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _module_path(name)
        if name in found or name in INFRASTRUCTURE or path is None:
            continue
        status = path.stat()
        found[name], imports = _read(path, status.st_mtime_ns, status.st_size)
        waiting.extend(imports)
    return dict(sorted(found.items()))


def _module_path(name: str) -> Path | None:
    """The file of a module of this package; None for anything else (an attribute, another library)."""
    parts = name.split(".")
    if parts[0] != PACKAGE:
        return None
    base = ROOT.joinpath(*parts[1:])
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


@lru_cache(maxsize=1024)
def _read(path: Path, mtime_ns: int, size: int) -> tuple[str, tuple[str, ...]]:
    """Digest and imports of one file; time and size are there to make an edited file another entry."""
    source = path.read_text(encoding="utf-8")
    tree = parsed(lambda: ast.parse(source))
    imports = tuple(sorted(_imports(tree)))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [line for line in body if not _is_text(line)] or [ast.Pass()]  # type: ignore[attr-defined]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:16], imports


def _is_text(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)


def _imports(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {name for name in names if name.split(".")[0] == PACKAGE}
