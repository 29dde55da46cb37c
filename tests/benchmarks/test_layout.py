"""benchmarks/: what is imported lies below, and every folder can be looked over."""

import ast
from graphlib import TopologicalSorter

import pytest
from benchmark_rows import FOLDER

MODULES = {
    ".".join(path.relative_to(FOLDER).with_suffix("").parts).removesuffix(".__init__"): path
    for path in FOLDER.rglob("*.py")
}


def imported(path):
    """Modules of benchmarks/ that one imports anywhere in its text."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name in MODULES)


def test_no_import_goes_round():
    graph = {name: set(imported(path)) for name, path in MODULES.items()}
    assert {"run", "harness.sweep", "peers.ours", "speed.rnn", "gpu.rnn"} <= set(graph)
    assert graph["gpu.rnn"] >= {"gpu.planned", "harness.bars"}
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


@pytest.mark.parametrize(
    "below, above", [("harness", "peers speed gpu pages learning"), ("peers", "speed gpu pages")]
)
def test_who_is_compared_and_what_all_share_know_no_suite(below, above):
    for name, path in MODULES.items():
        if name.split(".")[0] == below:
            assert {module.split(".")[0] for module in imported(path)}.isdisjoint(above.split()), name


def test_no_folder_has_more_than_sixteen_files():
    for folder in {path.parent for path in MODULES.values()}:
        files = [path.name for path in folder.iterdir() if path.suffix in (".py", ".cu", ".cpp")]
        assert len(files) <= 16, folder.name
