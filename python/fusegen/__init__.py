"""fusegen: fast recurrent layers for PyTorch with torch.nn's interface.

``fusegen.convert(model)`` turns every torch.nn recurrent module of a model into fusegen's in place;
``fusegen.nn`` holds the modules, ``fusegen.ops`` the functional forms, ``fusegen.reference`` the same maths
in plain torch.
"""

import importlib
from typing import Any

import torch  # noqa: F401  (first: _C must find torch's OpenMP runtime already loaded)

from . import _C, nn, ops
from ._backend import get_backend, set_backend
from .nn._states import detach
from .nn.convert import convert, revert
from .nn.frozen import frozen
from .nn.quantize import dequantize, quantize
from .nn.stream import Stream

__version__: str = _C.build_info()["version"]

__all__ = [
    "Stream",
    "convert",
    "dequantize",
    "detach",
    "frozen",
    "get_backend",
    "info",
    "nn",
    "ops",
    "quantize",
    "revert",
    "set_backend",
]

_LAZY_MODULES = (
    "cli", "data", "gan", "inspect", "metrics", "models", "onnx", "opacus", "reference", "rl", "train",
)  # fmt: skip


def info(shape: str | None = None, device: str = "cpu") -> str:
    """What ``fusegen info`` prints; ``shape`` is its ``--shape``: "cell,I,H,B,T,dtype,train|infer",
    ``device`` its ``--device``: "cpu", "cuda", or a GPU generation, "sm_80" to "sm_120".

    Raises ValueError, naming the part, for a shape that is not of that form, or another device.
    """
    from ._info import info

    return info(shape, device)


def __dir__() -> list[str]:
    return sorted({*__all__, *_LAZY_MODULES, "__version__"})


def __getattr__(name: str) -> Any:
    if name in _LAZY_MODULES:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
