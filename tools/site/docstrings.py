"""Griffe extensions: what the reference makes of docstrings.

OptionHelp: the help of a command line's option is its field's documentation.
``steps: int = option(900, "optimiser steps", least=1)`` becomes the attribute steps with the text "Optimiser
steps. At least 1.", since option() gives `fusegen train --help` the same text.

Shapes: [T, B, I] is shown as code.
"""

from __future__ import annotations

import ast
import re
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
        value = getattr(node, "value", None)
        called = (
            isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "option"
        )
        if called and attr.docstring is None and (text := described(value)):
            attr.docstring = griffe.Docstring(text, lineno=attr.lineno, endlineno=attr.endlineno, parent=attr)


# What stands in brackets, a shape as a rule, and no link; a code span, which stays as it is.
BRACKETS = re.compile(r"``.*?``|`[^`\n]*`|(?<![\w\])])\[[^\[\]`]*\](?![(\[])", re.S)


def with_shapes(text: str) -> str:
    """A docstring with its shapes as code: Markdown would take the stars of [L*D, B, P] for emphasis."""
    return BRACKETS.sub(lambda found: found[0] if found[0][0] == "`" else f"`{found[0]}`", text)


class Shapes(griffe.Extension):
    """Marks shapes in every docstring."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = with_shapes(obj.docstring.value)
