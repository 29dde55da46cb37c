"""What torch says of precision: its switches of TF32, as a call on a GPU reads them, and the dtypes of what
it gives under autocast."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def recurrence_in_tf32(dtype: torch.dtype) -> bool:
    """Whether the recurrence of this dtype may round to TF32: torch's own switch for recurrent layers."""
    if dtype != torch.float32:
        return False
    cudnn = torch.backends.cudnn
    precision = getattr(getattr(cudnn, "rnn", None), "fp32_precision", "none")
    if precision == "none":
        precision = getattr(cudnn, "fp32_precision", "none")
    if precision == "none":
        return bool(cudnn.allow_tf32)
    return precision == "tf32"


def products_in_tf32(dtype: torch.dtype) -> bool:
    """Whether matrix products of this dtype outside a recurrence may round to TF32: torch's own switch."""
    if dtype != torch.float32:
        return False
    matmul = torch.backends.cuda.matmul
    precision = getattr(matmul, "fp32_precision", "none")
    if precision == "none":
        return bool(matmul.allow_tf32)
    return precision == "tf32"


def as_torch_gives(
    cell: str,
    out: tuple[Tensor, ...],
    x: Tensor,
    states: Sequence[Tensor | None],
    *,
    computed: torch.dtype | None,
    is_cell: bool = False,
    ragged: bool = False,
    projected: bool = False,
) -> tuple[Tensor, ...]:
    """What a layer (output, then states) or a cell (its states) gives under autocast, in the dtypes that
    torch.nn's gives; ``computed`` is autocast's, None where it does not act on x.

    On a GPU that is autocast's own dtype. On the CPU it is of an RNN. The others' gates are computed in it,
    and meet the state that was carried so far, with whose dtype they are promoted: h of a GRU, c of an LSTM
    (of zeros that nobody gave, x's). An LSTM that oneDNN takes, which takes no ragged batch, no projection
    and no cell, gives autocast's dtype throughout; y and h of a projection come out of a product and have it.
    As the kernels compute in autocast's dtype, a wider one costs a pass over the result, and holds no more
    digits.
    """
    if computed is None or x.dtype == torch.float64:
        return out
    carried = next((s for s in reversed(states) if s is not None), x)
    wide = torch.promote_types(carried.dtype, computed)
    narrow = cell == "rnn" or not x.is_cpu
    if cell == "lstm" and not (is_cell or ragged or projected):
        narrow = narrow or takes_lstm(x.dtype)
    if narrow:
        wide = computed
    last = len(out) - 1
    return tuple(t.to(computed if projected and i < last else wide) for i, t in enumerate(out))


def takes_lstm(dtype: torch.dtype) -> bool:
    """Whether torch gives an LSTM on the CPU to oneDNN (use_mkldnn in its RNN.cpp)."""
    if not (torch.backends.mkldnn.is_available() and torch._C._get_mkldnn_enabled()):
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype != torch.float16 or bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())


# torch.compile shall call it, not look into it; see _backend.
setattr(takes_lstm, "_dynamo_marked_constant", True)  # noqa: B010
