"""The house's bars, read from the sources: no import circle, small folders, short functions, short calls."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "python/fusegen"
TOPS = (ROOT / "csrc", PACKAGE, ROOT / "benchmarks", ROOT / "tools")
SUFFIXES = (".py", ".pyi", ".h", ".cpp", ".cu")

MOST_FILES = 16
MOST_LINES = 80
MOST_ARGUMENTS = 6
# What takes arguments by position alone, or any number of one thing; and the ops themselves, where a name
# costs time at every call.
BY_POSITION = re.compile(
    r"(^|\.)(apply|Sequential|op|(direct|directly\(x\))\.(forward|backward)|(_C|kernels|ops\.aten)\.\w+)$"
)


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


# ---- import circles -----------------------------------------------------------------------------------


def modules_in(package: Path) -> dict[str, Path]:
    """Name -> file, of every module of a package; compiled ones by their .pyi."""
    found = {}
    for path in sorted([*package.rglob("*.py"), *package.rglob("*.pyi")]):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(module: str, path: Path, modules: dict[str, Path]) -> set[str]:
    """The modules that one names in an import anywhere, also inside functions. Packages around what it names
    do not count: they are there before."""
    inside = module if path.stem == "__init__" else module.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in modules}
        elif isinstance(node, ast.ImportFrom):
            above = inside.split(".")[: len(inside.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                found |= {full if full in modules else base} & modules.keys()
    return found


def circles_in(package: Path) -> list[list[str]]:
    """Groups of modules that import each other, directly or through others."""
    modules = modules_in(package)
    graph = {name: imports_of(name, path, modules) for name, path in modules.items()}
    reached = {}
    for name in graph:
        seen, waiting = set(), [name]
        while waiting:
            for other in graph[waiting.pop()] - seen:
                seen.add(other)
                waiting.append(other)
        reached[name] = seen
    groups = {tuple(sorted(b for b in reached[a] if a in reached[b])) for a in graph if a in reached[a]}
    return sorted(map(list, groups))


def test_no_import_circle():
    assert circles_in(PACKAGE) == []


def test_a_circle_would_be_found(tmp_path):
    package = tmp_path / "made"
    (package / "sub").mkdir(parents=True)
    (package / "__init__.py").write_text("from . import a\n")
    (package / "a.py").write_text("def late():\n    from .sub.b import x\n")
    (package / "sub/__init__.py").write_text("")
    (package / "sub/b.py").write_text("from ..c import y\n")
    (package / "c.py").write_text("import made.a\n")
    assert circles_in(package) == [["made.a", "made.c", "made.sub.b"]]


# ---- sizes --------------------------------------------------------------------------------------------


FOLDERS = [
    folder
    for top in TOPS
    for folder in (top, *sorted(path for path in top.rglob("*") if path.is_dir()))
    if any(path.suffix in SUFFIXES for path in folder.iterdir())
]


def sources_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)


@pytest.mark.parametrize("folder", FOLDERS, ids=named)
def test_a_folder_can_be_taken_in(folder):
    if folder.name != "instantiations":
        assert len(sources_in(folder)) <= MOST_FILES


def functions_in(path: Path) -> list[tuple[str, int]]:
    """(first line, number of lines) of functions; of C++ those that begin at the left edge."""
    text = path.read_text()
    lines = text.splitlines()
    if path.suffix.startswith(".py"):
        defined = (ast.FunctionDef, ast.AsyncFunctionDef)
        nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, defined)]
        return [(lines[node.lineno - 1].strip(), node.end_lineno - node.lineno + 1) for node in nodes]
    found, begin, body = [], None, False
    for number, line in enumerate(lines, 1):
        if begin is None and re.match(r"[a-zA-Z_\[]", line):
            begin = number
        body = body or (begin is not None and line.endswith("{"))
        ended = begin is not None and re.match(r"}|namespace\b", line)
        declared = not body and re.match(r"\S.*;$", line)
        if ended or declared:
            if body and line == "}":
                found.append((lines[begin - 1], number - begin + 1))
            begin, body = None, False
    return found


@pytest.mark.parametrize("folder", FOLDERS, ids=named)
def test_functions_are_short(folder):
    every = {f"{path.name}: {name}": n for path in sources_in(folder) for name, n in functions_in(path)}
    assert {name: n for name, n in every.items() if n > MOST_LINES} == {}


def test_a_long_function_would_be_found(tmp_path):
    body = "  a += 1;\n\n" * (MOST_LINES // 2)
    function = f"template <int N>\nvoid f(int a,\n       int b) {{\n{body}}}\n"
    source = f"namespace x {{\nint y;\nvoid f(int);\n\n{function}}}  // namespace x\n"
    (tmp_path / "a.cpp").write_text(source)
    assert functions_in(tmp_path / "a.cpp") == [("template <int N>", MOST_LINES + 4)]


def long_calls(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and not BY_POSITION.search(callee := ast.unparse(node.func)):
            count = sum(not isinstance(argument, ast.Starred) for argument in node.args)
            if count > MOST_ARGUMENTS:
                found.append(f"{path.name}:{node.lineno}: {callee} of {count} positional arguments")
    return found


@pytest.mark.parametrize("folder", FOLDERS, ids=named)
def test_calls_name_their_arguments(folder):
    assert [call for path in sources_in(folder) if path.suffix == ".py" for call in long_calls(path)] == []


# ---- checks before a commit ---------------------------------------------------------------------------


def test_the_hooks_are_what_make_lint_runs():
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)[1]
    checks = {" ".join(words) for words in re.findall(r"bin/([\w-]+)(?: (check|format)\b)?", recipe)}
    hooks = re.findall(r"entry: \.venv/bin/([\w-]+)(?: (check|format)\b)?", HOOKS.read_text())
    assert {" ".join(words) for words in hooks} == checks and len(checks) == 4


HOOKS = ROOT / ".pre-commit-config.yaml"


def packages_named_in(tree: ast.AST) -> set[str]:
    """Those beyond the standard library that a module imports anywhere."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names


def test_types_are_checked_alike_whatever_extras_are_installed():
    """mypy fails at a package that is not there, unless pyproject.toml says that it may be missing."""
    may_be_missing = re.search(
        r'module = \[([^\]]*)\]\nfollow_imports = "skip"', (ROOT / "pyproject.toml").read_text()
    )
    named = {name.removesuffix(".*") for name in re.findall(r'"([^"]+)"', may_be_missing[1])}
    used = set().union(*(packages_named_in(ast.parse(path.read_text())) for path in PACKAGE.rglob("*.py")))
    assert used - {"torch", "numpy", "fusegen"} <= named
