"""Writing a model as an ONNX file."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.utils import _pytree as pytree

from .. import _backend
from ..nn._base import Recurrent
from ..nn.cells import RecurrentCell
from ..nn.convert import converted, recurrent_modules
from ..nn.normalised import normalised_module
from ..nn.quantized import Quantized
from .nodes import NO_PROJECTION, NOTHING_INSIDE, opset, translation_table
from .packed import tracing

_BFLOAT16_SINCE = 22  # the first opset whose LSTM, GRU and RNN take it
_OLDEST = 18  # that torch's exporter writes


def export(
    model: nn.Module,
    args: Sequence[Any],
    path: str | os.PathLike[str],
    *,
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    opset_version: int = 18,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
) -> torch.onnx.ONNXProgram:
    """Writes ``model`` to ``path`` as ONNX, its recurrent layers and cells as ONNX's own LSTM, GRU and RNN
    nodes; everything else by torch.onnx.export(dynamo=True).

    Layers and cells of torch.nn are exported alike, and are torch.nn's again afterwards. What comes out is
    the model for inference, whatever its mode: dropout is left out.

    Args:
        args: example inputs, positional, as torch.onnx.export takes them. A PackedSequence among them becomes
            two inputs, the padded batch [T, B, I] and the lengths [B]; one that the model gives, two outputs
            alike. A model that packs inside is exported with whatever lengths come at run time.
        kwargs: example keyword inputs, such as ``lengths`` [B] int64.
        dynamic_shapes: which sizes may differ at run time, as torch.export.export takes it: of each input a
            dict from dimension to ``torch.export.Dim.DYNAMIC``. Batch and time both may. None: none does.
            A PackedSequence takes a pair, of its padded batch and of its lengths.
        opset_version: of ONNX, 18 or later. input_names, output_names: as torch.onnx.export takes them.

    Returns the program that was written. The file is complete or not there: an existing one is replaced only
    by a whole one; weights of 2 GB and more stand in ``path`` + ".data".

    Raises TypeError if ``model`` is not a Module or ``args`` no sequence; ValueError for a model with nothing
    recurrent in it, one that is quantized, recurrent modules with a forward of their own, projections, a
    dtype that ONNX's nodes lack (bfloat16 before opset 22) and an opset before 18; OSError where ``path``
    cannot be written; ImportError without onnxscript.
    """
    opset()
    kwargs = dict(kwargs or {})
    _check(model, args, opset_version)
    target = _writable(path)
    with converted(model), _in_inference(model), _backend.fused_alone():
        program = _traced(
            model, tuple(args), kwargs,
            dynamic_shapes=dynamic_shapes, opset_version=opset_version, input_names=input_names,
            output_names=output_names,
        )  # fmt: skip
    written = program.model.opset_imports.get("")
    if written != opset_version:
        raise ValueError(
            f"fusegen.onnx.export: expected an opset_version that this torch can write, got {opset_version}: "
            f"it would be {written}"
        )
    _fold_weights(program)
    _write(program, target)
    return program


def _check(model: nn.Module, args: Sequence[Any], opset_version: int) -> None:
    what = "fusegen.onnx.export"
    if not isinstance(model, nn.Module):
        raise TypeError(f"{what}: expected model to be a torch.nn.Module, got {type(model).__name__}")
    if isinstance(args, Tensor) or not isinstance(args, Sequence):
        raise TypeError(f"{what}: expected args to be a tuple of inputs, got {type(args).__name__}")
    if not isinstance(opset_version, int) or opset_version < _OLDEST:
        raise ValueError(f"{what}: expected opset_version to be {_OLDEST} or later, got {opset_version!r}")
    for name, m in model.named_modules():
        if isinstance(m, Quantized):
            raise ValueError(
                f"{what}: {name or 'the model'} ({type(m).__name__}) is quantized; fusegen.dequantize(model) "
                "gives one to export"
            )
    if (other := normalised_module(model)) is not None:
        raise ValueError(f"{what}: {other} has norms or blocks, for which ONNX has no node")
    found = [(name, m) for name, m in model.named_modules() if isinstance(m, _RECURRENT)]
    if not found:
        raise ValueError(
            f"{what}: expected a model with recurrent layers or cells, got {type(model).__name__} without "
            "any, which torch.onnx.export(dynamo=True) exports"
        )
    convertible = {id(m) for _, m in recurrent_modules(model)}
    for name, m in found:
        here = f"{what}: {name or 'the model'} ({type(m).__name__})"
        if id(m) not in convertible:
            raise ValueError(
                f"{here} has a forward of its own, which fusegen.convert leaves alone; torch's own exporter "
                "would write it, and writes some GRUs wrong"
            )
        if getattr(m, "_zones", False):
            raise ValueError(f"{here} has zoneout={m.zoneout}: expected {NOTHING_INSIDE}")
        if getattr(m, "proj_size", 0):
            raise ValueError(f"{here} has proj_size={m.proj_size}: {NO_PROJECTION}")
        for parameter in m.parameters():
            if parameter.dtype == torch.bfloat16 and opset_version < _BFLOAT16_SINCE:
                raise ValueError(
                    f"{here} is bfloat16, which ONNX's recurrent nodes have from opset {_BFLOAT16_SINCE} on, "
                    f"got opset_version={opset_version}; model.float() is exported at any"
                )
            if parameter.device.type not in _backend.FUSED_DEVICES:
                raise ValueError(
                    f"{here} is on device {parameter.device.type!r}; expected one of "
                    f"{', '.join(_backend.FUSED_DEVICES)}: model.cpu() first"
                )


_RECURRENT = (Recurrent, RecurrentCell, nn.RNN, nn.LSTM, nn.GRU, nn.RNNCell, nn.LSTMCell, nn.GRUCell)


def _writable(path: str | os.PathLike[str]) -> Path:
    """Before the work begins: that a file can be made there."""
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(
            f"fusegen.onnx.export: expected path to be a file, got the folder {str(target)!r}"
        )
    if not target.parent.is_dir():
        raise FileNotFoundError(f"fusegen.onnx.export: the folder of path {str(target)!r} does not exist")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise PermissionError(f"fusegen.onnx.export: the folder of path {str(target)!r} cannot be written")
    return target


@contextmanager
def _in_inference(model: nn.Module) -> Iterator[None]:
    modes = [(m, m.training) for m in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for m, training in modes:
            m.training = training


def _traced(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], **options: Any
) -> torch.onnx.ONNXProgram:
    given: tuple[tuple[int | str, Any], ...] = (*enumerate(args), *kwargs.items())
    packed = [key for key, value in given if isinstance(value, PackedSequence)]
    args, kwargs = tuple(map(_padded, args)), {name: _padded(a) for name, a in kwargs.items()}
    hooks = (
        model.register_forward_pre_hook(partial(_pack_inputs, packed), with_kwargs=True, prepend=True),
        model.register_forward_hook(_pad_outputs),
    )
    try:
        with tracing(), _without_idle_words():
            program = torch.onnx.export(
                model, args, kwargs=kwargs, dynamo=True, custom_translation_table=translation_table(),
                verbose=False, **options,
            )  # fmt: skip
    except torch.onnx.errors.OnnxExporterError as error:
        cause = error.__cause__
        while cause is not None:
            if isinstance(cause, ValueError) and str(cause).startswith("fusegen.onnx.export"):
                raise ValueError(str(cause)) from error
            cause = cause.__cause__
        raise
    finally:
        for hook in hooks:
            hook.remove()
    assert program is not None
    return program


@contextmanager
def _without_idle_words() -> Iterator[None]:
    """Leaves out what torch's exporter says and its caller cannot act on: that torchvision is absent, that a
    dimension has another one's name since both are equal, that torch itself uses a class that it deprecates.
    All else is said."""

    def says(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("torchvision is not installed. Skipping torchvision::")

    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    logger.addFilter(says)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning
            )
            warnings.filterwarnings("ignore", r"# The axis name: .* will not be used", UserWarning)
            yield
    finally:
        logger.removeFilter(says)


def _padded(value: Any) -> Any:
    """A PackedSequence as (the padded batch [T, B, ...], lengths [B])."""
    return pad_packed_sequence(value) if isinstance(value, PackedSequence) else value


def _pack_inputs(
    keys: Sequence[int | str], module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The inputs that were given as PackedSequences, by place or name, such again."""
    args = tuple(_packed(a) if i in keys else a for i, a in enumerate(args))
    return args, {name: _packed(a) if name in keys else a for name, a in kwargs.items()}


def _packed(padded: tuple[Tensor, Tensor]) -> PackedSequence:
    return pack_padded_sequence(*padded, enforce_sorted=False)


def _pad_outputs(module: nn.Module, args: object, output: Any) -> Any:
    return pytree.tree_map(_padded, output, is_leaf=lambda value: isinstance(value, PackedSequence))


# What puts weights into the order and shape of ONNX's nodes: done here, whatever their size, so that no
# runtime has to.
_OF_WEIGHTS = frozenset(("Reshape", "Gather", "Concat", "Shape", "Expand", "CastLike"))


def _fold_weights(program: torch.onnx.ONNXProgram) -> None:
    from onnxscript import optimizer

    optimizer.fold_constants(
        program.model, should_fold=lambda node: True if node.op_type in _OF_WEIGHTS else None
    )
    optimizer.remove_unused_nodes(program.model)


def _write(program: torch.onnx.ONNXProgram, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        program.save(Path(folder) / target.name)
        # the model last: until it is there, the weights beside it are those of nothing
        for file in sorted(Path(folder).iterdir(), key=lambda f: f.name == target.name):
            os.replace(file, target.parent / file.name)
