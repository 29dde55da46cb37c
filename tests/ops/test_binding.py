"""python/fusegen/_C.pyi says what the compiled module has: names, parameters, types."""

import ast
import re
from pathlib import Path

import fusegen
import pytest

STUB = ast.parse(Path(fusegen.__file__).with_name("_C.pyi").read_text())
NUMBER = re.compile(r"typing\.Supports(Int|Float)( \| typing\.Supports(Index|Int|Float))*")
TYPES = {
    "Tensor": "torch.Tensor | None",  # None is refused by the op, with its argument's name
    "_T": "torch.Tensor | None",
    "_Ts": "Sequence[torch.Tensor | None]",
    "_Blobs": "Sequence[torch.Tensor | None] | None",
    "_Inside": "tuple | None",
    "Sequence[_Ts]": "Sequence[Sequence[torch.Tensor | None]]",
    "_Shape": "Annotated[Sequence[int], FixedSize(9)]",
    "_Step": "tuple",
    "_Call": "tuple",
    "_Caches": "Sequence[tuple[int, bool, int, int]]",
    "dict[str, Any]": "dict",
    "dict[str, int]": "dict",
    "list[str]": "list",
}


CLASSES = {node.name: node for node in STUB.body if isinstance(node, ast.ClassDef)}


def functions(tree):
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def declared(node):
    """[(parameter, type, has a default)], what is returned; of the stub."""
    arguments = node.args.args
    late = len(arguments) - len(node.args.defaults)
    of = [
        (a.arg, TYPES.get(t := ast.unparse(a.annotation), t), i >= late)
        for i, a in enumerate(arguments)
        if a.arg not in ("self", "arg0")  # pybind11 names a property's argument arg0
    ]
    returned = ast.unparse(node.returns)
    return of, TYPES.get(returned, returned)


def compiled(made):
    """The same, of the signature that pybind11 writes into the docstring."""
    text = made.__doc__.strip().splitlines()[0]
    text = (
        text.replace("collections.abc.", "")
        .replace("fusegen._C.", "")
        .replace("typing.Annotated", "Annotated")
    )
    text = NUMBER.sub(lambda found: "float" if "Float" in found[0] else "int", text)
    text = re.sub(r'"(FixedSize\(\d+\))"', r"\1", text)
    text = f"a_property{text}" if text.startswith("(") else text
    node = ast.parse(f"def {text}: ...").body[0]
    return declared(node)


@pytest.mark.parametrize("name", functions(STUB))
def test_signature(name):
    assert compiled(getattr(fusegen._C, name)) == declared(functions(STUB)[name])


@pytest.mark.parametrize(("cls", "name"), [(c, f) for c, node in CLASSES.items() for f in functions(node)])
def test_signature_of_a_method(cls, name):
    member = getattr(getattr(fusegen._C, cls), name)
    is_property = isinstance(member, property)
    node = functions(CLASSES[cls])[name]
    assert is_property == any(ast.unparse(d) == "property" for d in node.decorator_list)
    assert compiled(member.fget if is_property else member) == declared(node)


def test_nothing_is_missing():
    public = {name for name in vars(fusegen._C) if not name.startswith("_")}
    assert public == {*functions(STUB), *CLASSES}
    for name, node in CLASSES.items():
        members = vars(getattr(fusegen._C, name)).items()
        has = {n for n, v in members if isinstance(v, property) or (callable(v) and not n.startswith("_"))}
        assert has == set(functions(node)) - {"__init__"}, name
