"""Differential privacy by Opacus (Yousefpour et al. 2021, arXiv:2109.12298).

``GradSampleModule`` and ``PrivacyEngine.make_private`` take fusegen's LSTM, GRU and RNN as they are,
converted ones too: a layer registers its grad sampler when Opacus puts its hooks on it. What the hooks do
not tell, hx and lengths, a layer remembers; what they cannot tell is refused by name: a gradient that reaches
the final states, a PackedSequence, unbatched input, weights that are computed, layers with norms or blocks.
For those ``grad_sample_mode="no_op"`` leaves the gradients to you:
``torch.func.vmap(torch.func.grad(loss))``.

Opacus is no dependency of fusegen's; ``pip install 'fusegen[privacy]'`` brings it.
"""

from __future__ import annotations

from ..nn import GRU, LSTM, RNN
from ..nn._opacus import grad_sampler
from ..nn._opacus import register as _register

__all__ = ["grad_sampler", "register"]


def register() -> None:
    """Makes ``grad_sampler`` Opacus' own of ``fusegen.nn.LSTM``, ``GRU`` and ``RNN``. A ``GradSampleModule``
    does so by itself when it meets one; needed only to say so beforehand. Raises ImportError without
    Opacus."""
    _register((LSTM, GRU, RNN))
