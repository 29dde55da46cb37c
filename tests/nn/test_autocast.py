"""Under autocast the layers and cells give the dtypes that torch.nn gives, which differ among them."""

import itertools

import fusegen
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16
NAMES = ("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell")
FORMS = {
    "padded": {}, "stacked": {"num_layers": 2}, "both ways": {"bidirectional": True},
    "projected": {"proj_size": 2}, "ragged": {}, "packed alike": {}, "one step": {}, "unbatched": {},
}  # fmt: skip


def dtypes_of(found):
    if isinstance(found, PackedSequence):
        found = found.data
    return found.dtype if isinstance(found, torch.Tensor) else tuple(map(dtypes_of, found))


def called(cls, form, x_dtype, states, weights, computed):
    """The dtypes that a module gives, its result, and those of the gradient of its first weight."""
    torch.manual_seed(0)
    is_cell = cls.__name__.endswith("Cell")
    m = cls(3, 4, dtype=weights, **FORMS[form])
    T, B = (1, 2) if form == "one step" else (5, 2)
    batch = () if form == "unbatched" else (B,)
    x = torch.randn(*batch, 3) if is_cell else torch.randn(T, *batch, 3)
    x = x.to(x_dtype)
    hx = None
    if states:
        planes = () if is_cell else (m.num_layers * (1 + m.bidirectional),)
        sizes = (4,) if is_cell else (m.proj_size or 4, 4)
        hx = tuple(
            torch.zeros(*planes, *batch, n, dtype=each) for n, each in zip(sizes * 2, states, strict=False)
        )
        hx = hx if cls.__name__.startswith("LSTM") else hx[0]
    if form in ("ragged", "packed alike"):
        x = pack_padded_sequence(x, [T, T if form == "packed alike" else 3])
    with torch.autocast("cpu", dtype=computed):
        found = m(x, hx)
    return dtypes_of(found), found, m


CALLS = [
    pytest.param(name, form, id=f"{name}-{form.replace(' ', '-')}")
    for name, form in itertools.product(NAMES, FORMS)
    if (form in ("padded", "unbatched") or not name.endswith("Cell"))
    and (form != "projected" or name == "LSTM")
]


@pytest.mark.parametrize("backend", ["fused", "torch"])
@pytest.mark.parametrize(("name", "form"), CALLS)
def test_dtypes_are_torch_nns(name, form, backend):
    fusegen.set_backend(backend)
    states = [None, (F32, F32), (BF16, BF16), (F16, F16)]
    if name.startswith("LSTM"):
        states += [(F32, BF16), (BF16, F32)]
    compared = 0
    for x_dtype, given, weights, computed in itertools.product(
        (F32, BF16, F16), states, (F32, BF16), (BF16, F16)
    ):
        try:
            theirs = called(getattr(nn, name), form, x_dtype, given, weights, computed)[0]
        except RuntimeError:  # oneDNN without float16 on this processor
            continue
        ours = called(getattr(fusegen.nn, name), form, x_dtype, given, weights, computed)[0]
        assert ours == theirs, (x_dtype, given, weights, computed)
        compared += 1
    assert compared > 20


@pytest.mark.parametrize("name", NAMES)
def test_gradients_and_values_are_those_of_the_computation(name):
    """A wider dtype than autocast's changes no value, and gradients come in the parameters' own."""
    _, found, m = called(getattr(fusegen.nn, name), "padded", F32, None, F32, BF16)
    y = found[0] if isinstance(found, tuple) else found
    assert torch.equal(y.to(BF16).to(y.dtype), y)
    y.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == F32 for p in m.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_compiled_it_is_the_same(name):
    m = getattr(fusegen.nn, name)(3, 4)
    x = torch.randn(2, 3) if name.endswith("Cell") else torch.randn(5, 2, 3)
    with torch.autocast("cpu", dtype=BF16):
        eager, compiled = m(x), torch.compile(m, backend="eager", fullgraph=True)(x)
    assert dtypes_of(eager) == dtypes_of(compiled)
