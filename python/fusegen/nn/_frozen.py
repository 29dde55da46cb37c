"""What the layers and cells know of ``fusegen.frozen``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn


class Frozen(Protocol):
    """The packed weights of one module."""

    def pays(self, T: int, B: int, H: int) -> bool: ...

    def blobs(self, module: nn.Module) -> Sequence[Sequence[Tensor]]: ...
