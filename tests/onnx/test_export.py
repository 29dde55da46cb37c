"""fusegen.onnx.export, run by ONNX Runtime at sizes that it was not exported with."""

import itertools
import os
import re
from pathlib import Path

import fusegen
import numpy as np
import pytest
import torch
from cases import CELL_NAMES, CELLS, label, layer
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.utils import _pytree as pytree

pytest.importorskip("onnxscript", reason="onnxscript is not installed")
onnx = pytest.importorskip("onnx", reason="onnx is not installed")
runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

I, H = 5, 7
NEWEST = 25  # opset that both torch's exporter and ONNX Runtime know
SIZES = ((4, 3), (9, 2), (1, 1))  # T, B at run time


def exported(model, args, folder, **options):
    """(what ran it, the program) of a model written to a folder."""
    path = folder / "model.onnx"
    program = fusegen.onnx.export(model, args, path, **options)
    onnx.checker.check_model(str(path), full_check=True)
    return runtime.InferenceSession(str(path)), program


def assert_agrees(session, model, args, **kwargs):
    """What ONNX Runtime gives is what the model gives, shapes included."""
    with torch.no_grad():
        expected = pytree.tree_leaves(model.eval()(*args, **kwargs))
    inputs = [t.numpy() for t in pytree.tree_leaves((args, kwargs))]
    got = session.run(None, dict(zip((i.name for i in session.get_inputs()), inputs, strict=True)))
    assert len(got) == len(expected)
    for ours, theirs in zip(got, expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-5)


def inputs_of(model, T, B, states):
    """x, and where asked for, the states."""
    x = torch.randn((B, T, I) if model.batch_first else (T, B, I))
    if not states:
        return (x,)
    LD = model.num_layers * (1 + model.bidirectional)
    s = torch.randn(LD, B, H)
    return x, (s, torch.randn(LD, B, H)) if model.mode == "LSTM" else s


def check_layer(folder, cell_name, states, lengths, opset_version=18, **options):
    model = layer(cell_name, I, H, **options)
    time, batch = (1, 0) if model.batch_first else (0, 1)
    shapes = {"input": {time: "time", batch: "batch"}, "hx": None, "lengths": None}
    args = inputs_of(model, 6, 4, states)
    shapes["hx"] = pytree.tree_map(lambda _: {1: "batch"}, args[1]) if states else None
    kwargs = {"lengths": torch.tensor([6, 1, 3, 2])} if lengths else {}
    shapes["lengths"] = {0: "batch"} if lengths else None
    given = {k: v for k, v in shapes.items() if v is not None}
    session, program = exported(
        model, args, folder, kwargs=kwargs, dynamic_shapes=given, opset_version=opset_version
    )
    nodes = [node.op_type for node in program.model.graph]
    assert nodes.count(model.mode.partition("_")[0]) == model.num_layers
    assert not {"Loop", "Scan", "Gather", "Split"} & set(nodes)  # the weights lie as the nodes take them
    for T, B in SIZES:
        kwargs = {"lengths": torch.arange(B) % (T + 1)} if lengths else {}
        assert_agrees(session, model, inputs_of(model, T, B, states), **kwargs)


QUICK = (
    {"num_layers": 2, "bidirectional": True, "batch_first": True},
    {"bias": False},
)


@pytest.mark.parametrize("options", QUICK, ids=label)
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_layers(tmp_path, cell_name, options):
    many = options is QUICK[0]
    check_layer(tmp_path, cell_name, states=many, lengths=many, **options)


@pytest.mark.slow
@pytest.mark.parametrize("opset_version", [18, NEWEST])
@pytest.mark.parametrize("lengths", [False, True], ids=["full", "lengths"])
@pytest.mark.parametrize("states", [False, True], ids=["zeros", "states"])
@pytest.mark.parametrize(
    "options",
    [
        {"num_layers": L, "bidirectional": two, "bias": bias, "batch_first": first}
        for L, two, bias, first in itertools.product((1, 2), *[(False, True)] * 3)
    ],
    ids=label,
)
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_every_option(tmp_path, cell_name, options, states, lengths, opset_version):
    check_layer(tmp_path, cell_name, states, lengths, opset_version, **options)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_cells(tmp_path, cell, bias):
    name, _, nonlinearity = cell.partition("_")
    options = {"nonlinearity": nonlinearity} if nonlinearity else {}
    model = getattr(fusegen.nn, name)(I, H, bias=bias, **options)
    state = lambda B: (torch.randn(B, H), torch.randn(B, H)) if name == "LSTMCell" else torch.randn(B, H)
    args = (torch.randn(3, I), state(3))
    shapes = pytree.tree_map(lambda _: {0: "batch"}, args)
    session, _ = exported(model, args, tmp_path, dynamic_shapes=shapes)
    for B in (1, 6):
        assert_agrees(session, model, (torch.randn(B, I), state(B)))
    session, _ = exported(model, args[:1], tmp_path, dynamic_shapes=shapes[:1])
    assert_agrees(session, model, (torch.randn(6, I),))


def test_weights_of_any_size_are_put_in_order_here(tmp_path):
    _, program = exported(nn.LSTM(64, 512), (torch.randn(3, 2, 64),), tmp_path)
    assert [node.op_type for node in program.model.graph] == ["LSTM", "Squeeze"]


def test_unbatched_input(tmp_path):
    model = nn.GRU(I, H)
    session, _ = exported(model, (torch.randn(4, I),), tmp_path, dynamic_shapes=({0: "time"},))
    assert_agrees(session, model, (torch.randn(9, I),))


class Packing(nn.Module):
    """Packs and unpacks inside, as much code does."""

    def __init__(self, batch_first, between=False, padding_value=0.0, total_length=False):
        super().__init__()
        self.lstm = nn.LSTM(I, H, 2, bidirectional=True, batch_first=batch_first)
        self.linear = nn.Linear(I, I)
        self.batch_first, self.between = batch_first, between
        self.padding_value, self.total_length = padding_value, total_length

    def forward(self, x, lengths):
        packed = pack_padded_sequence(x, lengths, batch_first=self.batch_first, enforce_sorted=False)
        if self.between:  # what reads the data themselves sees torch's, row by row
            packed = PackedSequence(self.linear(packed.data) + packed.data.mean(), *packed[1:])
        y, (h, c) = self.lstm(packed)
        T = (x.shape[1] if self.batch_first else x.shape[0]) if self.total_length else None
        y, back = pad_packed_sequence(y, self.batch_first, self.padding_value, T)
        return y, back, h, c


@pytest.mark.parametrize(
    "options",
    [
        {"batch_first": True},
        {"batch_first": False, "between": True, "padding_value": 1.5},
        {"batch_first": True, "between": True, "total_length": True},
    ],
    ids=label,
)
def test_a_model_that_packs(tmp_path, options):
    model = Packing(**options)
    time, batch = (1, 0) if model.batch_first else (0, 1)

    def inputs(T, lengths):
        B = len(lengths)
        return torch.randn((B, T, I) if model.batch_first else (T, B, I)), torch.tensor(lengths)

    shapes = ({time: "time", batch: "batch"}, {0: "batch"})
    session, _ = exported(model, inputs(6, [3, 5, 1]), tmp_path, dynamic_shapes=shapes)
    for T, lengths in ((6, [3, 5, 1]), (8, [8, 1]), (4, [2, 2, 2, 2])):
        assert_agrees(session, model, inputs(T, lengths))


def test_packed_input_and_output(tmp_path):
    model, lengths = nn.RNN(I, H), torch.tensor([2, 4, 1])
    x = torch.randn(4, 3, I)
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
    shapes = (({0: "time", 1: "batch"}, {0: "batch"}),)
    session, _ = exported(model, (packed,), tmp_path, dynamic_shapes=shapes)
    y, h = model(packed)
    y, back = pad_packed_sequence(y)
    names = [i.name for i in session.get_inputs()]
    got = session.run(None, dict(zip(names, (x.numpy(), lengths.numpy()), strict=True)))
    for ours, theirs in zip(got, (y, back, h), strict=True):
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_the_model_is_left_as_it_was(tmp_path):
    """torch.nn's layers are torch.nn's again, the converted ones stay, and so do modes and the backend."""
    model = nn.Sequential(nn.Linear(I, I), nn.ModuleDict({"a": nn.LSTM(I, H), "b": nn.GRU(I, H)}))
    fusegen.convert(model[1]["b"])
    model[1]["b"].eval()

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x):
            x = self.model[0](x)
            return self.model[1]["a"](x)[0] + self.model[1]["b"](x)[0]

    both, backend = Both(), fusegen.get_backend()
    exported(both, (torch.randn(3, 2, I),), tmp_path)
    assert type(model[1]["a"]) is nn.LSTM and type(model[1]["b"]) is fusegen.nn.GRU
    assert both.training and model[1]["a"].training and not model[1]["b"].training
    assert fusegen.get_backend() == backend and not both._forward_hooks and not both._forward_pre_hooks


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_whatever_backend_is_set(tmp_path, backend):
    fusegen.set_backend(backend)
    _, program = exported(nn.LSTM(I, H), (torch.randn(3, 2, I),), tmp_path)
    assert fusegen.get_backend() == backend
    assert [node.op_type for node in program.model.graph] == ["LSTM", "Squeeze"]


def test_float16(tmp_path):
    model = nn.GRU(I, H).half()
    session, _ = exported(model, (torch.randn(4, 3, I, dtype=torch.half),), tmp_path)
    x = torch.randn(4, 3, I, dtype=torch.half)
    (got, _), y = session.run(None, {session.get_inputs()[0].name: x.numpy()}), model(x)[0]
    np.testing.assert_allclose(got, y.detach().numpy(), atol=2e-3)


def test_torchs_own_exporter_with_our_table(tmp_path):
    model, path = fusegen.nn.LSTM(I, H).eval(), tmp_path / "model.onnx"
    torch.onnx.export(
        model, (torch.randn(4, 3, I),), path, dynamo=True, verbose=False,
        dynamic_shapes=({0: "time", 1: "batch"},), custom_translation_table=fusegen.onnx.translation_table(),
    )  # fmt: skip
    assert_agrees(runtime.InferenceSession(str(path)), model, (torch.randn(9, 2, I),))


X = torch.randn(3, 2, I)


class OwnForward(nn.GRU):
    def forward(self, x):
        return super().forward(x)[0]


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda p: (3, (X,), p), TypeError, "expected model to be a torch.nn.Module, got int"),
        (lambda p: (nn.LSTM(I, H), X, p), TypeError, "expected args to be a tuple of inputs, got Tensor"),
        (lambda p: (nn.Linear(I, H), (X,), p), ValueError, "got Linear without any"),
        (
            lambda p: (nn.ModuleDict({"enc": nn.LSTM(I, H, proj_size=3)}), (X,), p),
            ValueError,
            r"enc \(LSTM\) has proj_size=3",
        ),
        (
            lambda p: (OwnForward(I, H), (X,), p),
            ValueError,
            r"the model \(OwnForward\) has a forward of its own",
        ),
        (lambda p: (nn.GRU(I, H).bfloat16(), (X,), p), ValueError, "is bfloat16, .* opset 22 on, got"),
        (lambda p: (nn.GRU(I, H), (X,), p.parent), IsADirectoryError, "got the folder"),
        (lambda p: (nn.GRU(I, H), (X,), p / "model.onnx"), FileNotFoundError, "does not exist"),
    ],
)
def test_errors_leave_nothing(tmp_path, call, error, text):
    with pytest.raises(error, match=text):
        fusegen.onnx.export(*call(tmp_path / "model.onnx"))
    assert not os.listdir(tmp_path)


def test_an_opset_that_is_not_written(tmp_path):
    """torch's exporter writes opset 18 where it cannot write what is asked for, and warns."""
    with pytest.raises(ValueError, match="that this torch can write, got 99: it would be 18"):
        fusegen.onnx.export(nn.GRU(I, H), (X,), tmp_path / "a.onnx", opset_version=99)
    assert not [*tmp_path.iterdir()]


def test_an_opset_too_old(tmp_path):
    with pytest.raises(ValueError, match="expected opset_version to be 18 or later, got 17"):
        fusegen.onnx.export(nn.GRU(I, H), (X,), tmp_path / "a.onnx", opset_version=17)


def test_a_failed_export_keeps_the_old_file(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_text("old")
    with pytest.raises(Exception, match="Failed to export"):
        fusegen.onnx.export(nn.GRU(I, H), (torch.randn(3, 2, I + 1),), path)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["model.onnx"]


@pytest.mark.parametrize("root", [True, False], ids=["a layer", "a model"])
def test_torchscript_and_the_exporter_on_it_name_the_way_out(tmp_path, root):
    model = fusegen.nn.LSTM(I, H) if root else nn.Sequential(fusegen.nn.LSTM(I, H))
    for call in (
        lambda: torch.jit.script(model),
        lambda: torch.onnx.export(model, (X,), tmp_path / "a.onnx", dynamo=False),
    ):
        with pytest.raises(RuntimeError, match=r"fusegen.revert\(model\) .* fusegen.onnx.export"):
            call()
    with pytest.raises(RuntimeError, match=r"fusegen.nn.GRUCell: .* fusegen.revert\(model\)"):
        torch.jit.script(fusegen.nn.GRUCell(I, H))


def test_what_the_page_shows_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[2] / "docs/onnx.md"
    names = {}
    for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.S):
        exec(compile(code, str(page), "exec"), names)
    assert names["tags"].shape == (3, 50, 5)
