"""Limits that keep the code readable: sizes, import cycles, broad excepts, leftovers.

Looks at every Python file of src, bench, scripts and tests. Prints one line per finding and exits
with 1 if there is any.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeGuard

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("src", "bench", "scripts", "tests")
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60

BROAD_EXCEPTS: dict[str, str] = {
    "src/headrace/serving/worker.py:_answer": "a worker reports any failure of an engine",
    "src/headrace/serving/exchange.py:_answer": "a defect fails the request and is logged",
    "src/headrace/ingest/readers/__init__.py:read": "parsers of other people meet hostile files",
    "src/headrace/engines/windows.py:__init__": "tokenizers raises nothing narrower",
}
"""Where everything may be caught, as `path:function`, with the reason: a process boundary."""

LEFTOVERS = re.compile(
    r"\b(?:" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"]) + r")\b"
)
BROAD_NAMES = {"Exception", "BaseException"}


def python_files(root: Path) -> list[Path]:
    """Python files below the checked folders, those with only a `python` first line included."""
    files = sorted(path for name in FOLDERS for path in (root / name).rglob("*") if path.is_file())
    return [
        path
        for path in files
        if path.suffix == ".py" or (path.suffix == "" and _has_python_line(path))
    ]


def _has_python_line(path: Path) -> bool:
    with path.open("rb") as file:
        first = file.readline(200)
    return first.startswith(b"#!") and b"python" in first


def size_findings(name: str, text: str, tree: ast.Module) -> Iterator[str]:
    lines = text.count("\n") + (not text.endswith("\n"))
    if lines > MAX_FILE_LINES:
        yield f"{name}: {lines} lines, at most {MAX_FILE_LINES}"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                yield (
                    f"{name}:{node.lineno}: {node.name} has {length} lines, "
                    f"at most {MAX_FUNCTION_LINES}"
                )


def broad_excepts(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Innermost function (`` at module level) and line of each place that catches everything."""

    def visit(node: ast.AST, function: str) -> Iterator[tuple[str, int]]:
        for child in ast.iter_child_nodes(node):
            inside = function
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                inside = child.name
            elif _catches_everything(child):
                yield function, child.lineno
            yield from visit(child, inside)

    return visit(tree, "")


def _catches_everything(node: ast.AST) -> TypeGuard[ast.ExceptHandler | ast.Call]:
    if isinstance(node, ast.ExceptHandler):
        return (node.type is None or _names_broad(node.type)) and not _only_cleans_up(node)
    if isinstance(node, ast.Call):
        name = getattr(node.func, "attr", None) or getattr(node.func, "id", None)
        return name == "suppress" and any(map(_names_broad, node.args))
    return False


def _only_cleans_up(handler: ast.ExceptHandler) -> bool:
    """`except BaseException` that ends with a bare `raise` hides nothing."""
    last = handler.body[-1]
    named = isinstance(handler.type, ast.Name) and handler.type.id == "BaseException"
    return named and isinstance(last, ast.Raise) and last.exc is None


def _names_broad(node: ast.expr) -> bool:
    return any(isinstance(part, ast.Name) and part.id in BROAD_NAMES for part in ast.walk(node))


def except_findings(trees: Mapping[str, ast.Module], allowed: Mapping[str, str]) -> Iterator[str]:
    used = set()
    for name, tree in trees.items():
        for function, line in broad_excepts(tree):
            key = f"{name}:{function}"
            used.add(key)
            if key not in allowed:
                yield f"{name}:{line}: catches everything; name the exceptions, or list {key!r}"
    for key in sorted(set(allowed) - used):
        yield f"scripts/size_gate.py: {key!r} is listed but catches nothing broad"


# Import cycles -----------------------------------------------------------------------------------


def module_name(name: str) -> str:
    """`src/headrace/cli/__init__.py` -> `headrace.cli`; `bench/run.py` -> `bench.run`; scripts and
    tests are imported by their bare names."""
    parts = list(Path(name).with_suffix("").parts)
    if parts[0] == "src":
        parts = parts[1:]
    elif parts[0] in ("scripts", "tests"):
        parts = parts[-1:]
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts)


def import_graph(trees: Mapping[str, ast.Module]) -> dict[str, set[str]]:
    """Which module imports which, imports inside functions and for types included."""
    modules = {module_name(name): (name, tree) for name, tree in trees.items()}
    graph: dict[str, set[str]] = {}
    for module, (name, tree) in modules.items():
        package = module if name.endswith("__init__.py") else module.rpartition(".")[0]
        targets = {t for node in ast.walk(tree) for t in _imported(node, package, modules)}
        graph[module] = targets - {module}
    return graph


def _imported(node: ast.AST, package: str, modules: Iterable[str]) -> Iterator[str]:
    known = set(modules)
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in known)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parts = package.split(".")
            above = parts[: len(parts) - node.level + 1]
            base = ".".join([*above, *([base] if base else [])])
        for alias in node.names:
            inner = f"{base}.{alias.name}"
            if inner in known:
                yield inner
            elif base in known:
                yield base


def cycles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other (Tarjan's strongly connected components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in sorted(graph.get(node, ())):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def findings(root: Path, allowed: Mapping[str, str]) -> list[str]:
    """All findings below `root`, as lines to print."""
    found: list[str] = []
    trees: dict[str, ast.Module] = {}
    for path in python_files(root):
        name = path.relative_to(root).as_posix()
        text = path.read_text(encoding="utf-8")
        try:
            trees[name] = ast.parse(text)
        except SyntaxError as error:
            found.append(f"{name}:{error.lineno}: does not parse: {error.msg}")
            continue
        found += size_findings(name, text, trees[name])
        found += [
            f"{name}:{number}: leftover {match[0]!r}"
            for number, line in enumerate(text.splitlines(), 1)
            if (match := LEFTOVERS.search(line))
        ]
    found += except_findings(trees, allowed)
    found += [f"import cycle: {' <-> '.join(group)}" for group in cycles(import_graph(trees))]
    return found


def main() -> int:
    found = findings(ROOT, BROAD_EXCEPTS)
    print("\n".join(found) or "sizes, cycles, excepts and leftovers: nothing found")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
