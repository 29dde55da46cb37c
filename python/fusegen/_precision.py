"""torch's switches of TF32, as a call on a GPU reads them."""

from __future__ import annotations

import torch


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
