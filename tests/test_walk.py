"""The walks that CONTRIBUTING describes, from a call in Python to the kernel's arithmetic, are those of the
code, and short."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROW = re.compile(r"^\| `([\w./]+)` \| `(\w+)` \| `([^`]+)` \|$", re.M)
TABLES = [
    ROW.findall(part) for part in (ROOT / "CONTRIBUTING.md").read_text().split("| file | function | calls |")
][1:]
LAYER, STEP = TABLES


def body(file, function):
    """The text of the functions of this name in the file, those that the next ones are called from."""
    text = (ROOT / file).read_text()
    if file.endswith(".py"):
        nodes = ast.walk(ast.parse(text))
        found = [n for n in nodes if isinstance(n, ast.FunctionDef) and n.name == function]
        assert found, f"{file} has no function {function}"
        return "\n".join(ast.get_source_segment(text, n) for n in found)
    starts = [m.start() for m in re.finditer(rf"\b{function}\b[\"(<]", text)]
    assert starts, f"{file} has no function {function}"
    return "\n".join(braced(text[start:]) for start in starts)


def braced(text):
    """Up to the brace that closes the first one; nothing of what has none before its semicolon."""
    first = re.search(r"[{;]", text)
    if first is None or first[0] == ";":
        return ""
    depth = 0
    for brace in re.finditer(r"[{}]", text):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return text[: brace.end()]
    return text


@pytest.mark.parametrize("file, function, calls", LAYER + STEP)
def test_each_function_calls_the_next(file, function, calls):
    assert calls in re.sub(r"\n\s*", " ", body(file, function)).replace("( ", "(")


@pytest.mark.parametrize("table, most", [(LAYER, 11), (STEP, 9)], ids=["layer", "discriminator_step"])
def test_the_walk_is_short(table, most):
    assert 5 < len({file for file, *_ in table}) <= most
