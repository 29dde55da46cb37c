"""fusegen.quantize: integer weights against the float model that they stand for, and what the copy is."""

import copy
import io
import re
from pathlib import Path

import fusegen
import pytest
import torch
from cases import CELL_NAMES, CELLS, label, layer, options_of
from fusegen.data import Text
from fusegen.models import MLPGAN, VAE, RecurrentGAN
from fusegen.nn.quantized import from_int8, to_int8
from fusegen.train import FitOptions, TextOptions, TextTask
from fusegen.train.tasks.text import BITS
from runs import silent
from tolerances import agree
from torch import nn

# Of 127: half a step of x and one of h at each of T steps, through weights whose rows add up to about 1.
CLOSE = 3e-2
FLOATS = (torch.float32, torch.bfloat16, torch.float16)
T = 9
SIZES = ((7, 33, 1), (37, 70, 3), (64, 64, 40))  # I, H, B
THREADS = 2


def inputs(model, I, B, dtype=torch.float32):
    shape = (B, T, I) if model.batch_first else (T, B, I)
    LD = model.num_layers * (1 + model.bidirectional)
    states = [torch.randn(LD, B, model.proj_size or model.hidden_size), torch.randn(LD, B, model.hidden_size)]
    hx = tuple(s.to(dtype) for s in states) if model.mode == "LSTM" else states[0].to(dtype)
    return torch.randn(shape).to(dtype), hx


@torch.no_grad()
def run(model, *args, **kwargs):
    y, final = model(*args, **kwargs)
    return [y, *(final if isinstance(final, tuple) else (final,))]


@pytest.mark.parametrize("weight_only", [False, True], ids=["int8", "weights"])
@pytest.mark.parametrize("I, H, B", SIZES)
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_layers_give_what_the_integers_stand_for(cell_name, I, H, B, weight_only):
    for options in options_of(cell_name):
        model = layer(cell_name, I, H, **options)
        ours = fusegen.quantize(model, weight_only=weight_only)
        x, hx = inputs(model, I, B)
        lengths = torch.randint(0, T + 1, (B,))
        for got, want in zip(
            run(ours, x, hx, lengths=lengths),
            run(fusegen.dequantize(ours), x, hx, lengths=lengths),
            strict=True,
        ):
            assert got.shape == want.shape and got.dtype == want.dtype, label(options)
            if weight_only:
                agree(got, want, label(options))
            else:
                assert (got - want).abs().max() < CLOSE, label(options)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_input_of_any_float(cell_name, dtype):
    model = layer(cell_name, 37, 70, num_layers=2)
    ours, (x, hx) = fusegen.quantize(model), inputs(model, 37, 5, dtype)
    want = run(
        fusegen.dequantize(ours),
        x.float(),
        tuple(s.float() for s in hx) if isinstance(hx, tuple) else hx.float(),
    )
    for got, wanted in zip(run(ours, x, hx), want, strict=True):
        assert got.dtype == dtype and (got.float() - wanted).abs().max() < CLOSE


@pytest.mark.parametrize("weight_only", [False, True], ids=["int8", "weights"])
@pytest.mark.parametrize("cell", CELLS)
def test_cells(cell, weight_only):
    name, _, nonlinearity = cell.partition("_")
    for bias in (True, False):
        model = getattr(fusegen.nn, name)(
            37, 70, bias, **({"nonlinearity": nonlinearity} if nonlinearity else {})
        )
        ours = fusegen.quantize(model, weight_only=weight_only)
        back = fusegen.dequantize(ours)
        state = torch.randn(3, 70)
        hx = (state, torch.randn(3, 70)) if name == "LSTMCell" else state
        for args in ((torch.randn(3, 37), hx), (torch.randn(3, 37),), (torch.randn(37),)):
            got, want = ours(*args), back(*args)
            for g, w in zip(*((o if isinstance(o, tuple) else (o,)) for o in (got, want)), strict=True):
                assert g.shape == w.shape and (g - w).abs().max() < (1e-5 if weight_only else CLOSE)


@pytest.mark.parametrize("weight_only", [False, True], ids=["int8", "weights"])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_by_option(bias, weight_only):
    model = nn.Sequential(nn.Linear(37, 70, bias), nn.Tanh(), nn.Linear(70, 3))
    ours = fusegen.quantize(model, linear=True, weight_only=weight_only)
    back = fusegen.dequantize(ours)
    for x in (torch.randn(5, 4, 37), torch.randn(37), torch.randn(0, 37)):
        got, want = ours(x), back(x)
        assert got.shape == want.shape
        assert torch.allclose(got, want, atol=1e-5 if weight_only else CLOSE)


def test_sums_are_exact():
    """Integers as activations and weights, scales 1: what comes out is an integer product."""
    w = torch.randint(-127, 128, (24, 300)).float()
    w[:, 0] = 127
    x = torch.randint(-127, 128, (5, 300)).float()
    x[:, 0] = 127
    linear = nn.Linear(300, 24, bias=False)
    with torch.no_grad():
        linear.weight.copy_(w)
    assert torch.equal(fusegen.quantize(linear, linear=True)(x), (x.double() @ w.double().t()).float())


def test_rounding_of_weights():
    w = torch.randn(40, 30)
    w[3] = 0
    q, scale = to_int8(w)
    assert q.dtype == torch.int8 and q.abs().max() == 127 and not q[3].any() and scale[3] == 0
    assert ((from_int8(q, scale) - w).abs() <= scale.unsqueeze(1) / 2 * 1.001).all()


@pytest.mark.parametrize("H", [128, 512])
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_a_quarter_of_the_bytes(cell_name, H):
    model = layer(cell_name, H, H, num_layers=2, bidirectional=True)
    sizes = [sum(t.nbytes for t in m.state_dict().values()) for m in (fusegen.quantize(model), model)]
    assert sizes[0] <= 0.27 * sizes[1]


def test_a_packed_sequence():
    model = nn.LSTM(7, 33, bidirectional=True)
    ours = fusegen.quantize(model)
    packed = nn.utils.rnn.pack_padded_sequence(torch.randn(T, 3, 7), [2, 9, 5], enforce_sorted=False)
    got, want = ours(packed)[0], fusegen.dequantize(ours)(packed)[0]
    assert torch.equal(got.batch_sizes, want.batch_sizes) and (got.data - want.data).abs().max() < CLOSE


def test_rows_do_not_see_each_other():
    """A row's result is the same alone, beside others, and beside one that is not finite; that one is NaN."""
    ours, x = fusegen.quantize(nn.GRU(7, 33)), torch.randn(T, 40, 7)
    y = ours(x)[0]
    assert torch.equal(ours(x[:, 4:5])[0], y[:, 4:5])
    x[3, 7, 2] = torch.inf
    spoilt = ours(x)[0]
    assert spoilt[3:, 7].isnan().all() and not spoilt[:3, 7].isnan().any()
    rest = [b for b in range(40) if b != 7]
    assert torch.equal(spoilt[:, rest], y[:, rest])


def test_the_model_is_untouched_and_parts_stay_shared():
    gru = nn.GRU(5, 8)
    model = nn.ModuleDict({"a": gru, "b": gru, "head": nn.Linear(8, 2)})
    before = copy.deepcopy(model.state_dict())
    ours = fusegen.quantize(model)
    assert type(model["a"]) is nn.GRU and all(
        torch.equal(v, before[k]) for k, v in model.state_dict().items()
    )
    assert ours["a"] is ours["b"] and type(ours["head"]) is nn.Linear and ours["head"] is not model["head"]
    assert "QuantizedGRU(5, 8, int8)" in repr(ours)


def test_saving_and_loading(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    model = nn.ModuleDict({"lstm": nn.LSTM(64, 128, 2), "head": nn.Linear(128, 3)})
    ours, x = fusegen.quantize(model, linear=True), torch.randn(3, 2, 64)
    state = ours.state_dict()
    held = sum(t.numel() * t.element_size() for k, t in state.items() if k.startswith("lstm"))
    assert held <= 0.27 * sum(p.numel() * 4 for p in model["lstm"].parameters())
    safetensors.save_file(state, tmp_path / "model.safetensors")
    other = fusegen.quantize(
        nn.ModuleDict({"lstm": nn.LSTM(64, 128, 2), "head": nn.Linear(128, 3)}), linear=True
    )
    other["lstm"](x)  # its own weights are packed already
    other.load_state_dict(safetensors.load_file(tmp_path / "model.safetensors"))
    assert torch.equal(other["lstm"](x)[0], ours["lstm"](x)[0])
    file = io.BytesIO()
    torch.save(ours, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    assert torch.equal(again["lstm"](x)[0], ours["lstm"](x)[0])
    state["lstm.format_version"] = torch.tensor(2)
    with pytest.raises(RuntimeError, match="saved form of version 1, got version 2"):
        other.load_state_dict(state)


def test_casting_the_model_leaves_scales_as_they_are():
    ours, x = fusegen.quantize(nn.LSTM(5, 8)), torch.randn(4, 2, 5)
    y = ours(x)[0]
    assert torch.equal(ours.half().double()(x)[0], y)


def test_changed_integers_are_seen():
    ours, x = fusegen.quantize(nn.LSTM(5, 8)), torch.randn(4, 2, 5)
    y = ours(x)[0]
    ours.weight_hh_l0.zero_()
    assert not torch.equal(ours(x)[0], y)


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda: fusegen.quantize(3), TypeError, "expected model to be a torch.nn.Module, got int"),
        (
            lambda: fusegen.quantize(nn.Linear(2, 2)),
            ValueError,
            "recurrent layers or cells, got Linear without any",
        ),
        (
            lambda: fusegen.quantize(nn.Tanh(), linear=True),
            ValueError,
            "or Linear layers, got Tanh without any",
        ),
        (
            lambda: fusegen.quantize(nn.ModuleList([fusegen.quantize(nn.GRU(2, 2))])),
            ValueError,
            "0 is quantized already",
        ),
        (
            lambda: fusegen.quantize(nn.GRU(2, 2).double()),
            ValueError,
            r"\(GRU\): expected .* got torch.float64",
        ),
        (lambda: fusegen.quantize(nn.GRU(2, 2, device="meta")), ValueError, "on the CPU, got meta"),
        (lambda: fusegen.quantize(spoilt(nn.GRU(2, 2))), ValueError, "expected finite weights"),
        (lambda: fusegen.dequantize(nn.GRU(2, 2)), ValueError, "nothing in this GRU is quantized"),
        (lambda: fusegen.dequantize("x"), TypeError, "torch.nn.Module, got str"),
    ],
)
def test_errors_of_quantizing(call, error, text):
    with pytest.raises(error, match=text):
        call()


def spoilt(model):
    nn.init.constant_(next(model.parameters()), torch.inf)
    return model


@pytest.mark.parametrize(
    "make, x, error, text",
    [
        (
            lambda: nn.GRU(5, 8),
            torch.zeros(3, 2, 5).double(),
            ValueError,
            "float32, bfloat16 or float16, got",
        ),
        (lambda: nn.GRU(5, 8), torch.zeros(3, 2, 4), RuntimeError, "Expected 5, got 4"),
        (lambda: nn.GRU(5, 8), torch.zeros(0, 2, 5), RuntimeError, "length to be larger than 0"),
        (lambda: nn.GRU(5, 8), torch.zeros(3, 2, 5, requires_grad=True), RuntimeError, "give no gradients"),
        (lambda: nn.GRU(5, 8), torch.zeros(3, 2, 5, device="meta"), RuntimeError, "on the CPU, got .* meta"),
        (lambda: nn.LSTMCell(5, 8), torch.zeros(2, 4), RuntimeError, "got 4 expected 5"),
    ],
)
def test_errors_of_calls(make, x, error, text):
    with pytest.raises(error, match=text):
        fusegen.quantize(make())(x)


def test_new_memory_at_an_old_address_is_seen():
    """A buffer put in the place of another may lie where that one was."""
    ours, x = fusegen.quantize(nn.RNN(5, 64)), torch.randn(4, 2, 5)
    for _ in range(20):
        new = torch.randint(-127, 128, (64, 64), dtype=torch.int8)
        del ours.weight_hh_l0
        ours.register_buffer("weight_hh_l0", new.clone())
        del new
        assert (ours(x)[0] - fusegen.dequantize(ours)(x)[0]).abs().max() < CLOSE


@torch.inference_mode()
def test_made_and_changed_under_inference_mode():
    ours, x = fusegen.quantize(nn.GRU(5, 8)), torch.randn(4, 2, 5)
    y = ours(x)[0].clone()
    ours.weight_hh_l0.zero_()
    assert not torch.equal(ours(x)[0], y)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_a_trained_text_model_loses_little(cell):
    """Bits per character of a sentence that repeats, learnt to nearly sure."""
    words = b"a short story about a long story, and a long story about none. "
    text = Text("here", torch.tensor(list(words * 60), dtype=torch.uint8))
    task = TextTask.make(text, TextOptions(cell=cell, hidden=48, embedding=16, batch=8, chunk=32))
    silent(task, FitOptions(steps=120, lr=0.01), evaluations=1)
    before = task.evaluate()[BITS]
    assert before < 1.5
    for options in ({}, {"weight_only": True}, {"linear": True}):
        after = task.evaluate(fusegen.quantize(task.model, **options))[BITS]
        assert after - before < 0.01 + 0.01 * before, options


GENERATIVE = {
    "dense GAN": lambda: MLPGAN((1, 4, 4), num_classes=3),
    "its average": lambda: MLPGAN((5,), ema=0.9),
    "GAN of series": lambda: RecurrentGAN(2, steps=5, hidden_size=16),
    "with noise of its own": lambda: RecurrentGAN(2, steps=5, residual=True, output="linear"),
    "GAN of tokens": lambda: RecurrentGAN(vocab_size=5, steps=5, hidden_size=16),
    "VAE": lambda: VAE(16, 3, (16,)),
}


@pytest.mark.parametrize("weight_only", [False, True], ids=["int8", "weights"])
@pytest.mark.parametrize("name", GENERATIVE)
def test_generative_models_without_a_parameter_left_are_sampled(name, weight_only):
    model = GENERATIVE[name]()
    small = fusegen.quantize(model, linear=True, weight_only=weight_only)
    draw = lambda m: m.sample(8, generator=torch.Generator().manual_seed(3))
    got, want = draw(small), draw(model)
    assert got.dtype == want.dtype and got.shape == want.shape
    close = (got - want).abs() < 0.1  # tokens: the same ones, but where two are almost as likely
    assert close.double().mean() > 0.9


def test_what_the_page_shows_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page, names = Path(__file__).parents[2] / "docs/quantize.md", {}
    for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.S):
        exec(compile(code, str(page), "exec"), names)
    assert names["tags"].shape == (50, 1, 5)


def test_what_does_not_take_quantized_layers_says_so(tmp_path):
    ours = fusegen.quantize(nn.GRU(5, 8))
    with pytest.raises(ValueError, match=r"is quantized; fusegen\.dequantize"):
        fusegen.Stream(ours)
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    with pytest.raises(ValueError, match=r"is quantized; fusegen\.dequantize"):
        fusegen.onnx.export(ours, (torch.zeros(3, 2, 5),), tmp_path / "a.onnx")
    assert fusegen.convert(nn.ModuleList([ours]))[0] is ours
    with fusegen.frozen(ours):
        ours(torch.zeros(3, 2, 5))
