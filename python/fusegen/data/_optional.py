"""Libraries that fusegen does without until what needs them is called."""

import importlib
from typing import Any


def needed(module: str, package: str) -> Any:
    """The module. Raises ModuleNotFoundError, saying which `package` to install, where it is missing."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{package} is needed for this: pip install {package}", name=error.name
        ) from error
