"""Options of layers at their edges: vmap's randomness, wrong kinds, copies of 8 bits."""

from collections import namedtuple

import fusegen
import pytest
import torch
from tolerances import agree
from torch.func import functional_call, grad, jacrev, vmap
from torch.nn.utils.rnn import PackedSequence, pack_sequence

I, H, T, V = 5, 6, 7, 4
LAYERS = ("LSTM", "GRU", "RNN")
MASKS = {
    "state": {"recurrent_dropout": 0.5},
    "candidate": {"recurrent_dropout": 0.5, "recurrent_dropout_on": "candidate"},
    "zoneout": {"zoneout": 0.5},
    "weights": {"weight_drop": 0.5},
}


def regularised(name, masks):
    given = dict(MASKS[masks])
    if name == "LSTM" and "zoneout" in given:
        given["zoneout"] = (0.5, 0.5)
    return getattr(fusegen.nn, name)(I, H, **given).double()


# ---- vmap ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("name", LAYERS)
def test_vmap_says_how_random_samples_are(name, masks):
    m = regularised(name, masks)
    x = torch.randn(T, 2, I, dtype=torch.float64).expand(V, T, 2, I)

    def output(one):
        return m(one)[0]

    torch.manual_seed(0)
    alone = output(x[0])
    torch.manual_seed(0)
    same = vmap(output, randomness="same")(x)
    for one in same:
        agree(one, alone)
    different = vmap(output, randomness="different")(x)
    assert all(not torch.equal(different[0], one) for one in different[1:])
    with pytest.raises(RuntimeError, match="randomness"):
        vmap(output)(x)
    m.eval()
    agree(vmap(output)(x)[0], output(x[0]))


@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("name", LAYERS)
def test_per_sample_gradients_have_masks_of_their_own(name, masks):
    m = regularised(name, masks)
    weights = dict(m.named_parameters())
    x = torch.randn(T, 1, I, dtype=torch.float64).expand(V, T, 1, I)

    def loss(weights, one):
        return functional_call(m, weights, (one,))[0].square().sum()

    for randomness in ("same", "different"):
        found = vmap(grad(loss), in_dims=(None, 0), randomness=randomness)(weights, x)["weight_hh_l0"]
        assert torch.isfinite(found).all()
        equal = [torch.allclose(found[0], one) for one in found[1:]]
        assert all(equal) if randomness == "same" else not any(equal)


@pytest.mark.parametrize("B", [1, 2])
@pytest.mark.parametrize("name", LAYERS)
def test_lengths_that_vmap_does_not_map(name, B):
    m = getattr(fusegen.nn, name)(I, H).double()
    weights = dict(m.named_parameters())
    x, lengths = torch.randn(V, T, B, I, dtype=torch.float64), torch.tensor([5, 3][:B])

    def loss(weights, one):
        return functional_call(m, weights, (one,), {"lengths": lengths})[0].square().sum()

    for transform in (grad, jacrev):
        found = vmap(transform(loss), in_dims=(None, 0))(weights, x)
        for i, one in enumerate(x):
            want = grad(loss)(weights, one)
            for key in want:
                agree(found[key][i], want[key])


# ---- every layer has them -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["LayerNormLSTM", "LayerNormGRU", "BlockDiagonalLSTM", "BlockDiagonalRNN"])
def test_zeros_of_layers_with_norms_or_blocks(name):
    blocks = {"block_diagonal": 2} if name.startswith("Block") else {}
    m = getattr(fusegen.nn, name)(I, H, 2, bidirectional=True, **blocks)
    x = torch.randn(T, 3, I)
    state = m.zeros(3)
    states = state if isinstance(state, tuple) else (state,)
    assert [tuple(s.shape) for s in states] == [(4, 3, H)] * len(states)
    assert torch.equal(m(x, state)[0], m(x)[0])


def test_zeros_of_a_quantized_layer():
    small = fusegen.quantize(torch.nn.LSTM(I, H, 2, proj_size=3))
    assert [tuple(s.shape) for s in small.zeros(4)] == [(2, 4, 3), (2, 4, H)]


@pytest.mark.parametrize("name", ["LayerNormLSTM", "LayerNormGRU", "LayerNormLSTMCell", "LayerNormGRUCell"])
def test_a_norm_of_none_is_no_norm(name):
    with pytest.raises(
        ValueError, match=f"{name}: norm: expected one of 'haste', 'ba', 'dreamer', got 'none'"
    ):
        getattr(fusegen.nn, name)(I, H, norm="none")


@pytest.mark.parametrize("name", LAYERS)
def test_options_of_training_outlive_8_bits(name):
    given = {"recurrent_dropout": 0.3, "recurrent_dropout_on": "candidate", "weight_drop": 0.2}
    if name != "RNN":
        given["recompute"] = 3
    m = getattr(fusegen.nn, name)(I, H, **given)
    back = fusegen.dequantize(fusegen.quantize(m))
    assert {option: getattr(back, option) for option in given} == given
    assert repr(back) == repr(m)


# ---- what does not fit ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [1 - 1e-9, 1 - 2**-26])
@pytest.mark.parametrize("option", ["recurrent_dropout", "zoneout", "weight_drop"])
def test_a_probability_that_is_1_in_float32(option, rate):
    with pytest.raises(ValueError, match=f"{option}: expected a number that is below 1 in float32, got"):
        fusegen.nn.GRU(I, H, **{option: rate})
    fusegen.nn.GRU(I, H, **{option: 1 - 2**-24})


@pytest.mark.parametrize(
    ("reset_to", "said"),
    [
        (0, "got int"),
        ("ab", "got str"),
        (iter([torch.zeros(1, H)] * 2), "got list_iterator"),
        ((torch.zeros(1, H),) * 3, "got tuple of 3"),
    ],
    ids=["int", "str", "iterator", "three"],
)
def test_reset_to_of_one_sequence(reset_to, said):
    resets = torch.zeros(T, dtype=torch.bool)
    with pytest.raises(TypeError, match=rf"LSTM: expected reset_to as a pair \(h, c\), {said}"):
        fusegen.nn.LSTM(I, H)(torch.randn(T, I), resets=resets, reset_to=reset_to)


@pytest.mark.parametrize(
    ("resets", "kind"),
    [
        (torch.zeros(T, 2, dtype=torch.bool, device="meta"), "meta"),
        (torch.zeros(T, 2, dtype=torch.bool).to_sparse(), "torch.sparse_coo"),
    ],
    ids=["meta", "sparse"],
)
def test_resets_without_values(resets, kind):
    with pytest.raises(ValueError, match=f"GRU: expected resets as a dense tensor with values, got a {kind}"):
        fusegen.nn.GRU(I, H)(torch.randn(T, 2, I), resets=resets)


@pytest.mark.parametrize("zoneout", [None, True, "ab"])
def test_zoneout_of_another_kind(zoneout):
    with pytest.raises(TypeError, match="LSTM: expected zoneout as a pair of numbers, of h and c, got"):
        fusegen.nn.LSTM(I, H, zoneout=zoneout)


def test_recompute_beyond_any_length():
    x = torch.randn(T, 2, I, requires_grad=True)
    fusegen.nn.LSTM(I, H, recompute=2**64)(x)[0].sum().backward()
    assert torch.isfinite(x.grad).all()


def test_states_with_names_are_detached():
    State = namedtuple("State", "h c")
    state = State(torch.ones(2, requires_grad=True) * 2, [torch.ones(2, requires_grad=True) * 3, None])
    found = fusegen.detach(state)
    assert isinstance(found, State) and not found.h.requires_grad and not found.c[0].requires_grad
    packed = pack_sequence([torch.ones(3, 2, requires_grad=True) * 2])
    assert not fusegen.detach(packed).data.requires_grad


@pytest.mark.parametrize("name", ["LayerNormGRU", "BlockDiagonalLSTM"])
def test_no_way_out_is_promised_where_there_is_none(name):
    blocks = {"block_diagonal": 2} if name.startswith("Block") else {}
    with pytest.raises(RuntimeError, match=r"neither torch.nn nor ONNX has norms or blocks"):
        torch.jit.script(getattr(fusegen.nn, name)(I, H, **blocks))


# ---- what torch.nn's take ---------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(10, 0), (0, 4)])
@pytest.mark.parametrize("name", LAYERS)
def test_cells_of_size_0(name, sizes):
    ours = getattr(fusegen.nn, f"{name}Cell")(*sizes)
    theirs = getattr(torch.nn, f"{name}Cell")(*sizes)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, sizes[0])
    for a, b in zip(as_tuple(ours(x)), as_tuple(theirs(x)), strict=True):
        assert torch.equal(a, b)


def as_tuple(t):
    return t if isinstance(t, tuple) else (t,)


@pytest.mark.parametrize(
    ("rows", "state"),
    [((I,), (3, H)), ((3, I), (H,)), ((1, I), (H,)), ((I,), (1, H))],
    ids=["row-batch", "batch-row", "batch of one-row", "row-batch of one"],
)
@pytest.mark.parametrize("name", LAYERS)
def test_input_and_states_of_other_ranks(name, rows, state):
    hx = torch.randn(state)
    state_name = r"hx\[0\]" if name == "LSTM" else "hidden"
    said = f"{name}Cell: expected input and {state_name} both of a batch, 2-D"
    with pytest.raises(RuntimeError, match=f"{said}.* got input {len(rows)}-D and .* {len(state)}-D"):
        getattr(fusegen.nn, f"{name}Cell")(I, H)(torch.randn(rows), (hx, hx) if name == "LSTM" else hx)


class Wrapped:
    """No Tensor, but what torch's functions take for one."""

    def __init__(self, held):
        self.held = held

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return func(*(a.held if isinstance(a, cls) else a for a in args), **(kwargs or {}))

    def __getattr__(self, name):
        return getattr(self.held, name)


@pytest.mark.parametrize("name", LAYERS)
def test_an_input_with_a_torch_function(name):
    cell, x = getattr(fusegen.nn, f"{name}Cell")(I, H).double(), torch.randn(3, I, dtype=torch.float64)
    for a, b in zip(as_tuple(cell(Wrapped(x))), as_tuple(cell(x)), strict=True):
        agree(a, b)


class Tagger(torch.nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, data, batch_sizes):
        return self.layer(PackedSequence(data, batch_sizes))[0].data


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True, "bias": False}])
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_trace_of_a_packed_sequence_takes_other_sizes(name, options):
    m = Tagger(getattr(fusegen.nn, name)(I, H, **options).double())
    first, other = (
        pack_sequence([torch.randn(n, I, dtype=torch.float64) for n in lengths])
        for lengths in ((4, 2), (6, 3, 1))
    )
    traced = torch.jit.trace(m, (first.data, first.batch_sizes))
    for packed in (first, other):
        agree(traced(packed.data, packed.batch_sizes), m(packed.data, packed.batch_sizes))


@pytest.mark.parametrize("name", LAYERS)
def test_forward_mode_through_a_packed_sequence(name):
    m = Tagger(getattr(fusegen.nn, name)(I, H).double())
    packed = pack_sequence([torch.randn(n, I, dtype=torch.float64) for n in (4, 2)])
    direction = torch.randn_like(packed.data)
    out, tangent = torch.func.jvp(lambda d: m(d, packed.batch_sizes), (packed.data,), (direction,))
    want = torch.autograd.functional.jvp(lambda d: m(d, packed.batch_sizes), packed.data, direction)
    agree(out, want[0])
    agree(tangent, want[1])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torch_ao_is_not_silent():
    m = fusegen.convert(torch.nn.Sequential(torch.nn.LSTM(I, H)))
    with pytest.warns(UserWarning, match=r"leaves fusegen.nn.LSTM as it is; fusegen.quantize\(model\)"):
        left = torch.ao.quantization.quantize_dynamic(m, {torch.nn.LSTM}, dtype=torch.qint8)
    assert type(left[0]) is fusegen.nn.LSTM and not hasattr(m[0], "qconfig")


def test_dir_lists_what_there_is():
    assert {"convert", "nn", "Stream", "train", "inspect", "data"} <= set(dir(fusegen))
    assert not [name for name in dir(fusegen) if name.startswith("_") and name != "__version__"]
