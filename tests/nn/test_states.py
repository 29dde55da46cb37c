"""States of layers as truncated and streaming use wants them: zeros, detach, those of the last steps."""

import fusegen
import pytest
import torch
from cases import CELL_NAMES, DTYPES, flat, hidden, layer, tree
from tolerances import close
from torch.nn.utils.rnn import pack_padded_sequence

T, B, I, H = 7, 3, 4, 5
STACKS = [{}, {"num_layers": 2, "batch_first": True}]
ALL = [*[(name, options) for name in CELL_NAMES for options in STACKS], ("LSTM", {"proj_size": 2})]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def data(options, dtype=torch.float64):
    x = torch.randn(T, B, I, dtype=dtype)
    return x.transpose(0, 1).contiguous() if options.get("batch_first") else x


def time(x, steps, options):
    return x[:, steps] if options.get("batch_first") else x[steps]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("name", "options"), [*ALL, ("GRU", {"bidirectional": True})], ids=str)
def test_zeros_are_the_state_before_the_first_step(name, options, dtype):
    m, x = layer(name, I, H, dtype=dtype, **options), data(options, dtype)
    zeros = m.zeros(B)
    assert all(s.dtype == dtype and not s.any() and not s.requires_grad for s in flat(zeros))
    y, final = m(x, zeros)
    assert [s.shape for s in flat(zeros)] == [s.shape for s in flat(final)]
    assert torch.equal(y, m(x)[0])
    one = x[0] if options.get("batch_first") else x[:, 0]
    assert torch.equal(m(one, m.zeros())[0], m(one)[0])
    assert all(s.is_meta for s in flat(layer(name, I, H, device="meta", **options).zeros(B)))


def test_zeros_refuse_what_is_no_batch():
    m = layer("LSTM", I, H)
    with pytest.raises(TypeError, match="LSTM: expected batch as an int, got float"):
        m.zeros(2.0)
    with pytest.raises(ValueError, match="LSTM: expected a batch of 0 or more sequences, got -1"):
        m.zeros(-1)


def test_detach():
    m = layer("LSTM", I, H)
    _, state = m(torch.randn(T, B, I))
    h, c = fusegen.detach(state)
    assert not h.requires_grad and h.data_ptr() == state[0].data_ptr() and torch.equal(c, state[1])
    several = fusegen.detach([state, (state[0],), None])
    assert (
        isinstance(several, list)
        and not any(s.requires_grad for s in flat(several[:2]))
        and several[2] is None
    )
    with pytest.raises(TypeError, match="detach: expected a state, a Tensor or a tuple of them, got str"):
        fusegen.detach("h")


@pytest.mark.parametrize("k", [1, 3, T])
@pytest.mark.parametrize(("name", "options"), ALL, ids=str)
def test_states_of_the_last_steps(name, options, k):
    """Each is the final state of the sequence that ends there; its gradient too."""
    m, x = layer(name, I, H, dtype=torch.float64, **options), data(options)
    hx = hidden(name, m, B)
    y, states = m(x, hx, last=k)
    close(y, m(x, hx)[0], "value")
    for j in range(k):
        _, want = m(time(x, slice(T - k + j + 1), options), hx)
        got = tree(lambda s, j=j: s[j], states)
        close(flat(got), flat(want), "value")
        of = [
            torch.autograd.grad(sum(s.sum() for s in flat(t)), list(m.parameters()), retain_graph=True)
            for t in (got, want)
        ]
        close(list(of[0]), list(of[1]), "grad")


def test_states_of_sequences_that_ended_before_are_their_final_ones():
    m, x, lengths = layer("LSTM", I, H, dtype=torch.float64), data({}), torch.tensor([7, 5, 0])
    y, states = m(x, lengths=lengths, last=3)
    close(y, m(x, lengths=lengths)[0], "value")
    for j, t in enumerate((5, 6, 7)):
        want = m(x, lengths=lengths.clamp(max=t))[1]
        close(flat(tree(lambda s, j=j: s[j], states)), flat(want), "value")
    packed = pack_padded_sequence(x, [2, 7, 4], enforce_sorted=False)
    _, states = m(packed, last=2)
    want = m(x, lengths=[2, 7, 4], last=2)[1]
    close(flat(states), flat(want), "value")


def test_states_of_the_last_steps_after_resets():
    m, x = layer("LSTM", I, H, dtype=torch.float64), data({})
    resets = torch.rand(T, B) < 0.4
    _, states = m(x, m.zeros(B), resets=resets, last=4)
    for j in range(4):
        end = T - 3 + j
        close(flat(tree(lambda s, j=j: s[j], states)), flat(m(x[:end], resets=resets[:end])[1]), "value")


def test_unbatched():
    m, x = layer("GRU", I, H, dtype=torch.float64), torch.randn(T, I, dtype=torch.float64)
    _, states = m(x, last=2)
    assert states.shape == (2, 1, H)
    close(states[0], m(x[:-1])[1], "value")


def test_windows_of_truncated_backpropagation():
    """k1 = 2, k2 = 5: a window of 5 steps every 2, each from the state that the one before had 3 steps before
    its end, is the sequence."""
    m, x, k1, k2 = layer("LSTM", I, H, dtype=torch.float64), torch.randn(9, B, I, dtype=torch.float64), 2, 5
    state, whole = m.zeros(B), m(x)[0]
    for begin in range(0, 5, k1):
        y, states = m(x[begin : begin + k2], state, last=k2 - k1 + 1)
        close(y, whole[begin : begin + k2], "value")
        state = fusegen.detach(tuple(s[0] for s in states))


def test_bad_input():
    m, x = layer("LSTM", I, H), torch.randn(T, B, I)
    with pytest.raises(TypeError, match="LSTM: expected last as an int, got bool"):
        m(x, last=True)
    for k in (0, T + 1):
        with pytest.raises(
            ValueError, match=rf"LSTM: expected last in 1..{T} \(the number of steps\), got {k}"
        ):
            m(x, last=k)
    with pytest.raises(ValueError, match="expected last=None of a bidirectional layer"):
        layer("GRU", I, H, bidirectional=True)(x, last=1)
    dropped = layer("GRU", I, H, recurrent_dropout=0.5)
    with pytest.raises(ValueError, match="expected last=None in training with recurrent dropout"):
        dropped(x, last=2)
    dropped.eval()(x, last=2)
