"""Options of layers at their edges: vmap's randomness, wrong kinds, copies of 8 bits."""

from collections import namedtuple

import fusegen
import pytest
import torch
from tolerances import agree
from torch.func import functional_call, grad, jacrev, vmap
from torch.nn.utils.rnn import pack_sequence

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
