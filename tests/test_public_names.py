"""Every public name is in the reference, and its docstring says what a reader needs: each argument, shapes
and dtypes of tensors, errors, and for what is computed the paper or the equations."""

import ast
import dataclasses
import importlib
import inspect
import re
import typing
from pathlib import Path
from typing import Any

import fusegen
import pytest
from torch import Tensor

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "docs/reference"
MODULES = ("", "nn", "ops", "gan", "gan.ctgan", "inspect", "models", "data", "train", "metrics", "drawing",
           "onnx", "rl", "opacus", "reference")  # fmt: skip
COMPUTES = ("nn", "ops", "gan", "models", "metrics", "reference")  # what follows a paper or an equation
PATTERN = {
    "a shape": r"\[[^\]\n]*[A-Za-z\d.][^\]]*\]|scalar|any shape",
    "a dtype": r"float|int64|bool|dtype|uint8|integer",
    "its errors": r"\w+Error|[Nn]othing is raised|[Ee]rrors",
    "its source": r"\b(?:19|20)\d\d\b|arXiv|torch\.nn|[Ee]quations? of|No paper",
}
# Arguments that are explained once, for all classes that take them: those of the layers in torch.nn.
TORCH = {"input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional",
         "device", "dtype", "nonlinearity", "proj_size"}  # fmt: skip


def module_of(name: str) -> Any:
    return importlib.import_module(f"fusegen.{name}" if name else "fusegen")


def names_of(module: str) -> list[str]:
    """The public names of a module that are no modules: those of __all__, or what is defined in its file."""
    found = module_of(module)
    if hasattr(found, "__all__"):
        return [name for name in found.__all__ if not inspect.ismodule(getattr(found, name))]
    tree = ast.parse(inspect.getsource(found))
    defined = [node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    assigned = [
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]
    return [name for name in [*defined, *assigned] if not name.startswith("_")]


def path_of(module: str, name: str) -> str:
    return ".".join(part for part in ("fusegen", module, name) if part)


PUBLIC = {path_of(module, name): (module, name) for module in MODULES for name in names_of(module)}


def value_of(path: str) -> Any:
    module, name = PUBLIC[path]
    return getattr(module_of(module), name)


def is_called(thing: Any) -> bool:
    """A class or a function; no alias of types."""
    return (inspect.isclass(thing) or inspect.isroutine(thing)) and typing.get_origin(thing) is None


CALLED = [path for path in PUBLIC if is_called(value_of(path))]


def listed() -> list[str]:
    text = "".join(page.read_text() for page in REFERENCE.glob("*.md"))
    entries = re.findall(r"^::: (\S+)$((?:\n {4}.*)*)", text, re.M)
    heads = (
        re.search(r"heading: (fusegen\S+)", options) for _, options in entries
    )  # of one that hides behind
    return [head[1] if head else name for (name, _), head in zip(entries, heads, strict=True)]


def test_the_reference_lists_every_public_name_once():
    entries = listed()
    assert sorted(path for path in PUBLIC if entries.count(path) != 1) == []


def test_every_public_module_is_looked_at():
    lazy = {name for name in dir(fusegen) if inspect.ismodule(getattr(fusegen, name)) and name[0] != "_"}
    public = {name for name in lazy if name in {*fusegen.__all__, *fusegen._LAZY_MODULES}}
    assert public - {"cli"} <= set(MODULES)  # cli is the command line's page


def documentation_of(thing: Any) -> str:
    """Its docstring, and that of __init__; a class that has none has not its base's."""
    own = thing.__dict__.get("__doc__") if inspect.isclass(thing) else thing.__doc__
    init = thing.__dict__.get("__init__") if inspect.isclass(thing) else None
    return f"{own or ''}\n{getattr(init, '__doc__', '') or ''}"


def parameters_of(thing: Any) -> dict[str, inspect.Parameter]:
    if inspect.isclass(thing) and issubclass(thing, BaseException):
        return {}
    found = dict(inspect.signature(thing).parameters)
    told = {}
    if dataclasses.is_dataclass(thing):  # an option's help is documentation (tools/site_tools)
        told = {field.name for field in dataclasses.fields(thing) if field.metadata.get("help")}
    untold = {"args", "kwargs"}  # of classes without an __init__ of their own
    return {name: each for name, each in found.items() if name not in {*told, *untold} and name[0] != "_"}


def is_record(thing: Any) -> bool:
    """Whether a class is what something else gives: it computes nothing, and what it is made of is checked
    by who makes it."""
    return inspect.isclass(thing) and (issubclass(thing, tuple) or dataclasses.is_dataclass(thing))


def lacking(path: str) -> list[str]:
    """What the docstring of a class or function does not say."""
    module, _ = PUBLIC[path]
    thing = value_of(path)
    text, given = documentation_of(thing), parameters_of(thing)
    if not text.strip():
        return ["a docstring"]
    like_torch = TORCH if "torch.nn." in text or "fusegen.nn." in text else set()
    named = [name for name, each in given.items() if each.kind is not each.VAR_KEYWORD]
    told = [name for name in named if name in like_torch or re.search(rf"(?<!\w){name}(?!\w)", text)]
    found = [f"the argument {name}" for name in named if name not in told]
    returns = "" if inspect.isclass(thing) else inspect.signature(thing).return_annotation
    types = " ".join(str(each.annotation) for each in given.values()) + str(returns)
    wanted = []
    if re.search("Tensor|ndarray", types):
        wanted += ["a shape", "a dtype"]
    if given and not is_record(thing):
        wanted.append("its errors")
    if module in COMPUTES and not is_record(thing):
        wanted.append("its source")
    return found + [what for what in wanted if not re.search(PATTERN[what], text)]


@pytest.mark.parametrize("path", CALLED)
def test_a_docstring_says_what_is_needed(path):
    assert lacking(path) == []


def methods_of(path: str) -> dict[str, Any]:
    thing = value_of(path)
    own = vars(thing) if inspect.isclass(thing) else {}
    public = {name: getattr(each, "__func__", each) for name, each in own.items() if name[0] != "_"}
    return {name: each for name, each in public.items() if inspect.isfunction(each) and name != "extra_repr"}


def is_told(thing: type, name: str) -> bool:
    """Whether a method has a docstring, its own or that of a class of fusegen's which it overrides."""
    classes = [each for each in thing.__mro__ if each.__module__.startswith("fusegen")]
    return any(getattr(each.__dict__.get(name), "__doc__", None) for each in classes)


@pytest.mark.parametrize("path", [path for path in CALLED if methods_of(path)])
def test_every_public_method_has_a_docstring(path):
    assert [name for name in methods_of(path) if not is_told(value_of(path), name)] == []


@pytest.mark.parametrize("path", [path for path in PUBLIC if path not in CALLED])
def test_a_constant_is_followed_by_its_docstring(path):
    module, name = PUBLIC[path]
    homes = [module_of(module), *(m for m in map(inspect.getmodule, [module_of(module)]) if m)]
    sources = {Path(home.__file__) for home in homes}
    sources |= {file for source in sources for file in source.parent.glob("*.py")}
    sources.add(ROOT / "python/fusegen/losses.py")
    pattern = rf'^{name}\b[^\n=]*= (?:[^\n]+|[\[({{]\n(?:.*\n)*?[\])}}])\n"""'
    assert any(re.search(pattern, file.read_text(), re.M) for file in sources)


def test_a_docstring_that_says_nothing_would_be_found(monkeypatch):
    def poor(x: Tensor, weight: float) -> Tensor:
        """Does something to x."""
        return x

    monkeypatch.setattr(fusegen.gan, "generator_loss", poor)
    said = lacking("fusegen.gan.generator_loss")
    assert said == ["the argument weight", "a shape", "a dtype", "its errors", "its source"]
