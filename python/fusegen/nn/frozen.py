"""fusegen.frozen: weights packed once, for inference with weights that do not change."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from operator import is_not

import torch
from torch import Tensor, nn

from .. import _C
from ..ops.layout import present
from ..ops.spec import WEIGHTS_OF_A_CELL, CellSpec
from ._base import Recurrent
from .cells import RecurrentCell


def stamps_of(weights: Iterable[Tensor | None]) -> list[tuple[int, int]]:
    """Of each weight what moves when it does, as far as torch tells: by new memory, or a change in place."""
    return [(w.data_ptr(), w._version) for w in weights if w is not None]


def _pack(spec: CellSpec, given: Sequence[Tensor | None]) -> Tensor:
    """The blob of one direction's weights."""
    weights = [None if w is None else w.detach().contiguous() for w in given]
    W, R = weights[0], weights[1]
    assert W is not None and R is not None
    P = R.shape[1] if len(weights) == 5 and weights[4] is not None else 0
    cell, dtype = spec.engine_name(False), str(W.dtype).removeprefix("torch.")
    size = _C.packed_bytes(cell, W.shape[1], R.shape[0] // spec.gates, P, dtype)
    blob = torch.empty(size, dtype=torch.uint8, device="cpu")
    _C.pack(cell, weights, blob, torch.get_num_threads())
    return blob


class Packed:
    """The packed weights of one module: a blob for each direction of each layer, and the blocks that use them
    (``frozen``)."""

    def __init__(self, module: Recurrent | RecurrentCell) -> None:
        if isinstance(module, Recurrent):
            spec, layers = module._spec, [module._weights(i) for i in range(module.num_layers)]
        else:
            absent = [None] * (len(module._op.spec.weights) - WEIGHTS_OF_A_CELL)  # a cell has no projection
            spec, layers = module._op.spec, [[*module._weights(), *absent]]
        self.blocks = 0
        self._names = _names(module)
        self._seen = [module._parameters[name] for name in self._names]
        self._stamps = stamps_of(self._seen)
        # New memory shows by its address, so nothing else may be allocated at the old one.
        self._memory = [w.untyped_storage() for w in present(self._seen)]
        per = len(spec.weights)
        self._blobs = [
            [_pack(spec, weights[i : i + per]) for i in range(0, len(weights), per)] for weights in layers
        ]

    @staticmethod
    def pays(T: int, B: int, H: int) -> bool:
        """Whether a call is faster for packed weights.

        A single step of one or two rows, or a very small one, is not: it reads each weight once as it lies,
        and packed panels would be 2 to 20 % slower (measured at H 32 to 1024).
        """
        return T > 1 or (B > 2 and B * H >= 256)

    def blobs(self, module: nn.Module) -> list[list[Tensor]]:
        """The blobs, layer by layer; of a cell, as of one layer. Raises RuntimeError if a weight has
        visibly changed since they were made."""
        now = [*map(module._parameters.get, self._names)]
        if any(map(is_not, now, self._seen)) or stamps_of(now) != self._stamps:
            changed = (
                name
                for name, w, seen, stamp in zip(self._names, now, self._seen, self._stamps, strict=True)
                if w is not seen or stamps_of([w]) != [stamp]
            )
            raise RuntimeError(
                f"fusegen.frozen: {next(changed)} of a {module._get_name()} changed inside the with block; "
                "leave the block before training or loading weights"
            )
        return self._blobs


_entering = threading.Lock()


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """``with fusegen.frozen(model):`` packs the weights of every fusegen layer and cell once, until the block
    ends. For inference.

    Weights must not change inside the block. A change that torch counts (an optimiser step, load_state_dict,
    any in-place operation, ``.to``) makes the next call raise RuntimeError. One that torch does not count
    (``.data.mul_()``) goes unseen.

    Some calls read the weights themselves, as outside of the block: right, and not faster. These are single
    steps of one or two rows or of very few units; calls that record gradients, run under autocast or inside
    torch.compile; parametrized layers, whose weight is new at every call; and layers made under
    torch.inference_mode, of whose weights torch counts no changes. Modules on other devices than the CPU are
    left as they are.

    Args:
        model: holds the layers and cells; it is what the ``with`` statement gives.

    Blocks may be nested, and entered by several threads: the last one to end drops what the first has packed.
    Raises TypeError if ``model`` is not a Module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"fusegen.frozen: expected a torch.nn.Module, got {type(model).__name__}")
    mine: list[Recurrent | RecurrentCell] = []
    try:
        with _entering:
            for m in model.modules():
                if not isinstance(m, (Recurrent, RecurrentCell)):
                    continue
                if m._frozen is None and _fixed(m):
                    m._frozen = Packed(m)
                if isinstance(m._frozen, Packed):
                    m._frozen.blocks += 1
                    mine.append(m)
        yield model
    finally:
        with _entering:
            for m in mine:
                assert isinstance(m._frozen, Packed)
                m._frozen.blocks -= 1
                if m._frozen.blocks == 0:
                    del m._frozen


def _names(m: Recurrent | RecurrentCell) -> list[str]:
    if isinstance(m, Recurrent):
        return m._flat_weights_names
    return ["weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if m.bias else ())]


def _fixed(m: Recurrent | RecurrentCell) -> bool:
    """True if the module's weights are plain Parameters in the CPU's memory whose changes torch counts."""
    weights = [m._parameters.get(name) for name in _names(m)]
    return all(w is not None and w.is_cpu and not w.is_inference() for w in weights)
