"""What calls kernels that are no ops of torch's, streams and quantized modules, under what torch wraps around
ops: refused by name, never wrong without a word."""

import fusegen
import numpy as np
import pytest
import torch
from cases import flat
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad

CLOSE = 3e-2  # of 127: half a step of x and one of h at each step, as in test_quantize.py

MODULES = {
    "stream": lambda: fusegen.Stream(nn.GRU(4, 3), batch=2),
    "layer": lambda: fusegen.quantize(nn.LSTM(4, 3)),
    "weight_only": lambda: fusegen.quantize(nn.GRU(4, 3), weight_only=True),
    "cell": lambda: fusegen.quantize(nn.LSTMCell(4, 3)),
    "linear": lambda: fusegen.quantize(nn.Linear(4, 3), linear=True),
}


@pytest.fixture(params=MODULES)
def module(request):
    made = MODULES[request.param]()
    with torch.no_grad():
        made(torch.randn(2, 4))  # weights are packed, memory is taken
        yield made


def test_a_trace_is_refused(module):
    with pytest.raises(RuntimeError, match=r"torch\.jit\.trace does not see it"):
        torch.jit.trace(lambda x: module(x), (torch.randn(2, 4),), check_trace=False)


@pytest.mark.parametrize("fake", [False, True])
def test_fake_tensors_are_refused(module, fake):
    x = torch.randn(2, 4)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        given = mode.from_tensor(x) if fake else x
        with pytest.raises(RuntimeError, match="expected tensors with memory, got"):
            module(given)


def test_export_is_refused(module):
    class Around(nn.Module):
        def forward(self, x):
            return module(x)

    with pytest.raises(RuntimeError, match="expected tensors with memory, got"):
        torch.export.export(Around(), (torch.randn(2, 4),), strict=False)


def test_transforms_and_tangents_are_refused(module):
    x = torch.randn(2, 4)
    with pytest.raises(RuntimeError, match=r"torch\.vmap do not see into it"):
        torch.vmap(module)(torch.stack([x, x]))
    with pytest.raises(RuntimeError, match=r"torch\.vmap do not see into it"):
        torch.func.jvp(module, (x,), (x,))
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match="gives no tangents"):
        module(forward_ad.make_dual(x, x))


def test_plain_tensors_inside_a_level_are_taken(module):
    with forward_ad.dual_level():
        module(torch.randn(2, 4))


def test_compiled_around(module):
    x = torch.randn(2, 4)
    compiled = torch.compile(lambda x: module(x), backend="eager")
    if isinstance(module, fusegen.Stream):
        module.reset()
    got = [t.clone() for t in flat([compiled(x)])]
    if isinstance(module, fusegen.Stream):
        module.reset()
    assert all(map(torch.equal, got, flat([module(x)])))


@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)
@torch.no_grad()
def test_negative_views_have_their_sign(make):
    torch.manual_seed(0)
    first = make()
    torch.manual_seed(0)
    second = make()
    z = torch.complex(torch.zeros(1), torch.randn(1)).conj().imag.expand(2, 4)
    assert z.is_neg()
    for got, want in zip(flat([first(z)]), flat([second(z.clone().resolve_neg())]), strict=True):
        assert torch.equal(got, want)


@torch.no_grad()
def test_negative_states_have_their_sign():
    gru, x = nn.GRU(4, 1), torch.randn(3, 1, 4)
    h = torch.complex(torch.zeros(1, 1, 1), torch.ones(1, 1, 1)).conj().imag
    assert h.is_neg() and h.is_contiguous()
    quantized, stream = fusegen.quantize(gru), fusegen.Stream(gru)
    assert torch.equal(quantized(x, h)[0], quantized(x, -torch.ones(1, 1, 1))[0])
    stream.state = h
    assert stream.state.item() == -1


@pytest.mark.parametrize("make", ["layer", "cell", "linear"])
def test_gradients_are_refused(make):
    q, x = MODULES[make](), torch.randn(2, 4)
    with pytest.raises(RuntimeError, match="quantized modules give no gradients"):
        q(x.requires_grad_())
    if make == "linear":
        return
    shape = (1, 3) if make == "layer" else (2, 3)
    state = torch.zeros(shape, requires_grad=True), torch.zeros(shape)
    with pytest.raises(RuntimeError, match="quantized modules give no gradients"):
        q(x.detach(), state)


@pytest.mark.parametrize("rows", [[1.5], [True, False, True], np.array([0.5]), 1, "01", torch.tensor([True])])
def test_rows_that_are_no_integers_are_refused(rows):
    stream = fusegen.Stream(nn.LSTM(4, 3), batch=3)
    stream(torch.randn(3, 4))
    before = stream.state
    with pytest.raises(ValueError, match="expected rows as a list of integers"):
        stream.reset(rows)
    assert all(map(torch.equal, stream.state, before))


@pytest.mark.parametrize("rows", [[], [0, 2], range(1), np.array([1]), torch.tensor([2, 0])])
def test_rows_that_are(rows):
    stream = fusegen.Stream(nn.LSTM(4, 3), batch=3)
    stream(torch.randn(3, 4))
    stream.reset(rows)
    zero = [not h.any() for h in stream.state[0][0]]
    assert zero == [b in [*map(int, rows)] for b in range(3)]


@torch.no_grad()
def test_hooks_are_kept_there_and_back():
    gru = nn.GRU(4, 3)
    gru.register_forward_hook(lambda module, args, kwargs, out: (out[0] * 0, out[1]), with_kwargs=True)
    gru.register_forward_pre_hook(lambda module, args: (args[0] * 2, *args[1:]))
    x = torch.randn(3, 1, 4)
    small = fusegen.quantize(gru)
    back = fusegen.dequantize(small)
    assert (small(x)[1] - back(x)[1]).abs().max() <= CLOSE
    assert not small(x)[0].any() and not back(x)[0].any()


@torch.no_grad()
def test_hooks_that_make_weights_are_not():
    gru = torch.nn.utils.weight_norm(nn.GRU(4, 3), "weight_hh_l0")
    assert fusegen.quantize(gru)(torch.randn(3, 1, 4))[0].shape == (3, 1, 3)


@torch.no_grad()
def test_linear_layers_that_torch_reads_by_itself_stay():
    model = nn.Sequential(
        nn.TransformerEncoderLayer(8, 2, batch_first=True), nn.Linear(8, 8), nn.GRU(8, 4)
    ).eval()
    small, x = fusegen.quantize(model, linear=True), torch.randn(2, 3, 8)
    assert (small(x)[0] - model(x)[0]).abs().max() <= CLOSE
    assert type(small[0].linear1) is nn.Linear and type(small[1]) is not nn.Linear


def test_other_defaults_of_torch():
    lstm, x = nn.LSTM(4, 3), torch.randn(1, 1, 4)
    with torch.no_grad():
        want = fusegen.quantize(lstm)(x)[0], fusegen.Stream(lstm)(x)
        torch.set_default_device("meta")
        torch.set_default_dtype(torch.float64)
        try:
            small, stream = fusegen.quantize(lstm), fusegen.Stream(lstm)
            back = fusegen.dequantize(small)
            got = small(x)[0], stream(x)
            assert stream.state[0].is_cpu
        finally:
            torch.set_default_device(None)
            torch.set_default_dtype(torch.float32)
    assert torch.equal(got[0], want[0]) and torch.equal(got[1], want[1])
    assert {(p.device.type, p.dtype) for p in back.parameters()} == {("cpu", torch.float32)}


@pytest.mark.parametrize("state", [5, "h", torch.zeros(1, 2, 3, device="meta")])
def test_states_that_are_none(state):
    with pytest.raises(ValueError, match=r"fusegen\.Stream: expected (the )?state"):
        fusegen.Stream(nn.GRU(4, 3), batch=2).state = state
