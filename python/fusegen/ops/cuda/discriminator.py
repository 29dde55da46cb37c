"""The discriminator step of a dense network on a GPU: kernels for all of it, with no product of torch's.

Products of float32 follow torch's switch for matrix products (torch.backends.cuda.matmul).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ... import _C, _backend, _precision
from .engine import Engine, stream_of

_DROPOUTS = 16  # their place in the step that the engine takes, csrc/bind/arguments.cpp


def forward(
    engine: Engine, step: tuple[Any, ...], fake: Tensor, loss: Tensor, scalars: Tensor, logits: Tensor
) -> Tensor:
    """Writes loss, scalars and logits; gives what backward needs. ``step`` as the engine takes it."""
    if fake.is_cuda and any(step[_DROPOUTS]) and torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            f"discriminator step: Dropout cannot be captured in a CUDA graph on {fake.device}: its key is an "
            "argument of the kernels, so that every replay would have this call's masks"
        )
    saved = fake.new_empty(engine.kernels.gpu_mlp_saved_bytes(step), dtype=torch.uint8)
    tf32 = _precision.products_in_tf32(fake.dtype)
    _note(engine.kernels.gpu_mlp_forward(step, tf32, stream_of(fake), loss, scalars, logits, saved))
    return saved


def backward(
    engine: Engine,
    step: tuple[Any, ...],
    fake: Tensor,
    scale: Tensor,
    saved: Tensor,
    grads: tuple[Tensor | None, Tensor | None, Sequence[Tensor | None], Sequence[Tensor | None]],
) -> None:
    """Writes ``grads``: of real, fake, the weights and the biases, where they are there."""
    dx_real, dx_fake, dweights, dbiases = grads
    workspace = fake.new_empty(engine.kernels.gpu_mlp_workspace_bytes(step), dtype=torch.uint8)
    _note(engine.kernels.gpu_mlp_backward(
        step, _precision.products_in_tf32(fake.dtype), stream_of(fake), scale, saved, workspace, dweights,
        dbiases, dx_real, dx_fake,
    ))  # fmt: skip


def _note(run: _C.MlpRun) -> None:
    if not run.together:
        _backend.note("discriminator step on GPU: one launch does not fit on this device, one a layer ran")
    if run.tile == "warpgroups" and run.bulk < run.products:
        _backend.note(
            "discriminator step on GPU: rows of the samples or of a weight do not begin on 16 bytes, lanes "
            "copied them where bulk copies could have"
        )
