"""fusegen.quantize and fusegen.dequantize: models for inference whose weights have 8 bits, and back."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from . import quantized as q
from .cells import GRUCell, LSTMCell, RNNCell
from .convert import converted, recurrent_modules
from .gru import GRU
from .lstm import LSTM
from .normalised import normalised_module
from .rnn import RNN

_INT8: dict[type[nn.Module], type[q.Quantized]] = {
    LSTM: q.QuantizedLSTM,
    GRU: q.QuantizedGRU,
    RNN: q.QuantizedRNN,
    LSTMCell: q.QuantizedLSTMCell,
    GRUCell: q.QuantizedGRUCell,
    RNNCell: q.QuantizedRNNCell,
}
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_FLOAT: dict[str, Any] = {"device": "cpu", "dtype": torch.float32}  # whatever torch's defaults are


def quantize(model: nn.Module, *, linear: bool = False, weight_only: bool = False) -> nn.Module:
    """A copy of ``model`` for inference on the CPU whose recurrent layers and cells, of fusegen.nn or
    torch.nn, hold their weights in 8 bits; ``model`` stays as it is.

    Each row of a weight (an output unit's) is a float32 scale times integers of -127..127, a quarter of
    float32's bytes. Activations are scaled and rounded to 8 bits row by row as they come, sums are exact in
    32 bits, the same on every CPU, and biases, states and the cells' maths are float32. Input is float32,
    bfloat16 or float16, and results have its dtype. An x or h that is not finite in a row makes its outputs
    NaN (with ``weight_only`` it goes through the maths as in float32). Forward hooks are kept.

    Args:
        model: holds the layers and cells, at any depth.
        linear: Linear layers too, but for those inside torch's MultiheadAttention and
            TransformerEncoderLayer, which read their weights by themselves, and those that are parametrized.
        weight_only: activations stay float32; closer to the float model, and slower.

    The state dict holds integers, scales, biases and a version, and goes into any file that tensors go into
    (``torch.save``, safetensors); it is loaded into a model that was quantized alike. Training is not
    possible: inputs that require a gradient are refused.

    Recurrent dropout and weight drop, which inference has not, come back with ``dequantize``.

    Raises TypeError if ``model`` is not a Module; ValueError for one with nothing to quantize or that is
    quantized already, for zoneout, cells with norms or blocks, float64, weights that are not finite, or on
    another device than the CPU.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"fusegen.quantize: expected model to be a torch.nn.Module, got {type(model).__name__}"
        )
    twice = next((name for name, m in model.named_modules() if isinstance(m, q.Quantized)), None)
    if twice is not None:
        raise ValueError(f"fusegen.quantize: {twice or 'the model'} is quantized already")
    if (other := normalised_module(model)) is not None:
        raise ValueError(f"fusegen.quantize: {other} has norms or blocks, which the kernels of 8 bits lack")
    found = dict(recurrent_modules(model))
    if linear:
        found |= _linear_layers(model)
    if not found:
        raise ValueError(
            "fusegen.quantize: expected a model with recurrent layers or cells"
            f"{' or Linear layers' * linear}, got {type(model).__name__} without any"
        )
    for name, m in found.items():
        _check(name, m)
    made: dict[int, Any] = {}
    with torch.no_grad():
        for m in found.values():
            made[id(m)] = _with_hooks(_made(m, weight_only), m)
    # deepcopy takes what it finds there for the copy of a module
    copied: nn.Module = copy.deepcopy(model, made)
    return copied


def dequantize(model: nn.Module) -> nn.Module:
    """A copy of ``model`` in which what ``quantize`` made is fusegen.nn's layers, cells and torch.nn's Linear
    again, float32, with the weights that the integers stand for.

    Raises TypeError if ``model`` is not a Module, ValueError if nothing in it is quantized.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"fusegen.dequantize: expected model to be a torch.nn.Module, got {type(model).__name__}"
        )
    found = [m for m in model.modules() if isinstance(m, q.Quantized)]
    if not found:
        raise ValueError(f"fusegen.dequantize: nothing in this {type(model).__name__} is quantized")
    with torch.no_grad():
        made: dict[int, Any] = {id(m): _with_hooks(_float(m), m) for m in found}
    copied: nn.Module = copy.deepcopy(model, made)
    return copied


def _linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """But for those whose weights their owner reads by itself, in eval: torch's attention and its encoder
    layers."""
    read = {
        id(m)
        for owner in model.modules()
        if isinstance(owner, (nn.MultiheadAttention, nn.TransformerEncoderLayer))
        for m in owner.modules()
    }
    return {name: m for name, m in model.named_modules() if type(m) is nn.Linear and id(m) not in read}


def _with_hooks(made: nn.Module, of: nn.Module) -> nn.Module:
    """``made`` with the forward hooks of the module that it stands for, but for those that make its weights
    (torch.nn.utils: weight_norm, spectral_norm, prune)."""
    for name, hooks in vars(of).items():
        if name.startswith("_forward") and isinstance(hooks, dict):
            kept = {k: h for k, h in hooks.items() if not type(h).__module__.startswith("torch.nn.utils")}
            vars(made)[name] = type(hooks)(kept)
    return made


def _check(name: str, m: nn.Module) -> None:
    if getattr(m, "_zones", False):
        raise ValueError(
            f"fusegen.quantize: {name or 'the model'} ({type(m).__name__}) has zoneout={m.zoneout}, whose "
            "mean of states the kernels of 8 bits do not take"
        )
    for parameter in m.parameters():
        what = f"fusegen.quantize: {name or 'the model'} ({type(m).__name__})"
        if parameter.device.type != "cpu":
            raise ValueError(
                f"{what}: expected weights on the CPU, got {parameter.device}; model.cpu() first"
            )
        if parameter.dtype not in _DTYPES:
            raise ValueError(f"{what}: expected float32, bfloat16 or float16, got {parameter.dtype}")
        if not bool(torch.isfinite(parameter).all()):
            raise ValueError(f"{what}: expected finite weights, got inf or NaN among them")


def _made(m: nn.Module, weight_only: bool) -> q.Quantized:
    if isinstance(m, nn.Linear):
        return q.QuantizedLinear(m, weight_only).train(m.training)
    with converted(m):
        cls = next(int8 for fused, int8 in _INT8.items() if isinstance(m, fused))
        made: q.Quantized = cls(m, weight_only)  # type: ignore[call-arg, arg-type]
    return made.train(m.training)


def _float(m: q.Quantized) -> nn.Module:
    """The float module that ``m`` stands for."""
    made: nn.Module
    if isinstance(m, q.QuantizedLinear):
        made = nn.Linear(m.in_features, m.out_features, "bias" in m._buffers, **_FLOAT)
    else:
        cls = next(fused for fused, int8 in _INT8.items() if type(m) is int8)
        options: dict[str, Any] = {"bias": m.bias}
        if isinstance(m, q.QuantizedLayers):
            for name in ("num_layers", "batch_first", "dropout", "bidirectional"):
                options[name] = getattr(m, name)
            options |= m._options
            if m.proj_size:
                options["proj_size"] = m.proj_size
            if cls is RNN:
                options["nonlinearity"] = m.mode.removeprefix("RNN_").lower()
        elif cls is RNNCell and isinstance(m, q.QuantizedCell):
            options["nonlinearity"] = m.nonlinearity
        made = cls(m.input_size, m.hidden_size, **options, **_FLOAT)
    for name, parameter in made.named_parameters():
        held, scale = m._buffers[name], m._buffers.get(f"{name}_scale")
        assert held is not None
        parameter.copy_(held if scale is None else q.from_int8(held, scale))
    return made.train(m.training)
