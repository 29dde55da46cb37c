"""Griffe extensions: what the reference makes of docstrings.

OptionHelp: the help of a command line's option is its field's documentation.
``steps: int = option(900, "optimiser steps", least=1)`` becomes the attribute steps with the text "Optimiser
steps. At least 1.", since option() gives `fusegen train --help` the same text.

Marked: [T, B, I], and an argument where it is explained, are shown as code.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from typing import Any

import griffe

BOUNDS = {"least": "At least {}.", "most": "At most {}."}
OPEN = {"least": ("open_below", "Above {}."), "most": ("open_above", "Below {}.")}


def described(call: ast.Call) -> str | None:
    """What the arguments of option() say, as sentences; None where the help is not written there."""
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    text = given.get("help") or (call.args[1] if len(call.args) > 1 else None)
    if not isinstance(text, ast.Constant) or not isinstance(text.value, str):
        return None
    words = text.value.strip().rstrip(".")
    sentences = [words[:1].upper() + words[1:] + "."]
    if choices := given.get("choices") or (call.args[2] if len(call.args) > 2 else None):
        sentences.append(f"One of `{ast.unparse(choices)}`.")
    for bound, sentence in BOUNDS.items():
        if bound in given:
            name, strict = OPEN[bound]
            sentences.append((strict if name in given else sentence).format(ast.unparse(given[bound])))
    return " ".join(sentences)


class OptionHelp(griffe.Extension):
    """Reads option() calls while Griffe visits the sources."""

    def on_attribute_instance(self, *, node: Any, attr: griffe.Attribute, **_: Any) -> None:
        call = getattr(node, "value", None)
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "option"):
            return
        if attr.docstring is None and (text := described(call)):
            attr.docstring = griffe.Docstring(text, lineno=attr.lineno, endlineno=attr.endlineno, parent=attr)
        if call.args:
            attr.value = ast.unparse(call.args[0])  # the default, which the signature shows


# What stands in brackets, a shape as a rule, and no link; a code span, which stays as it is.
BRACKETS = re.compile(r"``.*?``|`[^`\n]*`|(?<![\w\])])\[[^\[\]`]*\](?![(\[])", re.S)


def with_shapes(text: str) -> str:
    """A docstring with its shapes as code: Markdown would take the stars of [L*D, B, P] for emphasis."""
    return BRACKETS.sub(lambda found: found[0] if found[0][0] == "`" else f"`{found[0]}`", text)


def with_names(text: str, names: Iterable[str]) -> str:
    """A docstring with its arguments as code where they are explained: "steps: of a window. stride: ...", at
    the start of a line that is not indented, or of a sentence. Entries of "Args:" are left to Griffe."""
    any_name = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    if not any_name:
        return text
    listed = rf"(?:^|(?<=[.;] ))((?:{any_name})(?:(?:, | and )(?:{any_name}))*)(?=: |:\n)"
    return re.sub(listed, lambda found: re.sub(r"\w+(?<!\band)", r"`\g<0>`", found[1]), text, flags=re.M)


class Marked(griffe.Extension):
    """Marks shapes in every docstring, and the arguments that it explains."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = with_shapes(obj.docstring.value)

    def on_function_instance(self, *, func: griffe.Function, **_: Any) -> None:
        if func.docstring is not None:
            names = [parameter.name.lstrip("*") for parameter in func.parameters]
            func.docstring.value = with_names(func.docstring.value, names)

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        if cls.docstring is not None:
            init = cls.members.get("__init__")
            given = [p.name.lstrip("*") for p in init.parameters] if isinstance(init, griffe.Function) else []
            fields = [name for name, member in cls.members.items() if member.is_attribute]
            cls.docstring.value = with_names(cls.docstring.value, {*given, *fields} - {"self"})
