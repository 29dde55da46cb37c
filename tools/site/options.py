"""Griffe extension: the help of a command line's option is its field's documentation in the reference.

``steps: int = option(900, "optimiser steps", least=1)`` becomes the attribute steps with the text "Optimiser
steps. At least 1.", since option() gives `fusegen train --help` the same text.
"""

from __future__ import annotations

import ast
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
