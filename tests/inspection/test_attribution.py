"""What answers rest on, against sums worked out by hand and by loops in float64."""

import importlib.util
import itertools

import fusegen
import pytest
import torch
from fusegen import inspect
from tolerances import close, near
from torch import nn

CAPTUM = importlib.util.find_spec("captum") is not None
needs_captum = pytest.mark.skipif(not CAPTUM, reason="captum is not installed")


class Last(nn.Module):
    """Classes read off the last step; dropout shows whether evaluation mode is on."""

    def __init__(self, cell="LSTM", dtype=torch.float64, **options):
        super().__init__()
        self.rnn = getattr(fusegen.nn, cell)(3, 6, dtype=dtype, **options)
        D = 2 if options.get("bidirectional") else 1
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(D * 6, 4, dtype=dtype)

    def forward(self, x):
        return self.head(self.drop(self.rnn(x)[0][-1]))


class Tokens(nn.Module):
    def __init__(self, cell="GRU"):
        super().__init__()
        self.embedding = nn.Embedding(11, 3, dtype=torch.float64)
        self.rnn = getattr(fusegen.nn, cell)(3, 6, batch_first=True, dtype=torch.float64)
        self.head = nn.Linear(6, 4, dtype=torch.float64)

    def forward(self, tokens):
        return self.head(self.rnn(self.embedding(tokens))[0].mean(1))


# ---- gradients -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN"])
def test_gradients_are_difference_quotients(cell):
    m = Last(cell).train()
    x, target = torch.randn(5, 2, 3, dtype=torch.float64), torch.tensor([1, 3])
    got = inspect.gradients(m, x, target)
    assert m.training and m.rnn.training and all(p.grad is None for p in m.parameters())
    m.eval()
    step = 1e-6
    for t, b, i in itertools.product((0, 4), (0, 1), range(3)):
        there, back = x.clone(), x.clone()
        there[t, b, i] += step
        back[t, b, i] -= step
        slope = (m(there)[b, target[b]] - m(back)[b, target[b]]).item() / (2 * step)
        assert abs(got[t, b, i].item() - slope) < 1e-8
    assert torch.equal(inspect.gradients(m, x, target, times_input=True), got * x)


def test_gradients_at_an_embedding():
    m, tokens = Tokens(), torch.randint(11, (2, 5))
    got = inspect.gradients(m, tokens, lambda out: out.square().sum(1), batch_dim=0, at="embedding")
    e = m.embedding(tokens).detach().requires_grad_()
    want = torch.autograd.grad(m.head(m.rnn(e)[0].mean(1)).square().sum(), e)[0]
    close(got, want, "grad")


@pytest.mark.parametrize(
    "options, error, said",
    [
        ({}, TypeError, "at=, the embedding"),
        ({"at": "embeding"}, ValueError, "nearest is 'embedding'"),
        ({"at": nn.Identity()}, ValueError, "another module"),
        ({"at": "embedding", "batch_dim": 2}, ValueError, "batch_dim in 0..1"),
        ({"at": "embedding", "target": 4}, ValueError, "target in 0..3"),
        ({"at": "embedding", "target": lambda out: out}, ValueError, r"target to give \[2\]"),
    ],
)
def test_gradients_of_bad_input(options, error, said):
    options = {"target": 0, "batch_dim": 0} | options
    with pytest.raises(error, match=said):
        inspect.gradients(Tokens(), torch.randint(11, (2, 5)), options.pop("target"), **options)


# ---- integrated gradients ------------------------------------------------------------------------------

THREE = {
    "classes of an LSTM": lambda: (Last(), torch.randn(9, 2, 3, dtype=torch.float64), {}),
    "classes of a stack": lambda: (
        Last("GRU", num_layers=2, bidirectional=True),
        torch.randn(9, 2, 3, dtype=torch.float64),
        {},
    ),
    "tokens": lambda: (Tokens("LSTM"), torch.randint(11, (2, 9)), {"batch_dim": 0, "at": "embedding"}),
}


@pytest.mark.parametrize("with_captum", [False, pytest.param(True, marks=needs_captum)])
@pytest.mark.parametrize("which", THREE)
def test_integrated_gradients_are_complete(which, with_captum):
    """Within 1 % at 64 steps, in float32 too."""
    m, x, options = THREE[which]()
    with torch.no_grad():
        for p in m.parameters():
            p.mul_(2)
    for dtype in (torch.float64, torch.float32):
        m.to(dtype)
        got = inspect.integrated_gradients(
            m, x.to(dtype) if x.is_floating_point() else x, 2, with_captum=with_captum, **options
        )
        assert got.values.dtype == dtype and (got.gap <= 0.01).all(), got.gap
        sums = got.values.movedim(options.get("batch_dim", 1), 0).flatten(1).sum(1)
        assert ((sums - got.change).abs() <= 0.01 * got.change.abs()).all()


@needs_captum
@pytest.mark.parametrize("which", THREE)
def test_captum_gives_the_same(which):
    m, x, options = THREE[which]()
    ways = [inspect.integrated_gradients(m, x, 1, with_captum=way, **options) for way in (False, True)]
    close(ways[0].values, ways[1].values, "peer")  # captum holds the points in float32


def test_integrated_gradients_of_a_function_known_in_closed_form():
    """Of sum(x^3) from a baseline a: (x^4 - a^4 - 4 a^3 (x - a)) / ... by one dim, exact for a polynomial."""
    x, a = torch.randn(4, 2, dtype=torch.float64), 0.5
    got = inspect.integrated_gradients(
        lambda x: x, x, lambda out: out.pow(3).sum(0), baseline=a, steps=2, with_captum=False
    )
    close(got.values, x.pow(3) - a**3, "grad")


def test_the_points_are_those_of_the_rule():
    with pytest.raises(ValueError, match="steps"):
        inspect.integrated_gradients(Last(), torch.randn(2, 2, 3, dtype=torch.float64), 0, steps=0)
    m, x = Last().float(), torch.randn(9, 1, 3) * 6
    gaps = [inspect.integrated_gradients(m, x, 0, steps=n, with_captum=False).gap for n in (1, 64)]
    assert gaps[1] < gaps[0]


def test_without_captum_it_says_so(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    m, x = Last(), torch.randn(3, 2, 3, dtype=torch.float64)
    with pytest.raises(ImportError, match="pip install captum"):
        inspect.integrated_gradients(m, x, 0, with_captum=True)
    assert (inspect.integrated_gradients(m, x, 0).gap < 0.01).all()


@needs_captum
@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize(
    "method",
    ["Saliency", "InputXGradient", "IntegratedGradients", "FeatureAblation", "GradientShap", "Occlusion"],
)
def test_captums_own_methods_run_on_the_layers(cell, method):
    """In evaluation mode, where torch.nn's layers fail on a GPU."""
    import captum.attr

    m = Last(cell, dtype=torch.float32).eval()
    x = torch.randn(2, 5, 3, requires_grad=True)
    model = lambda x: m(x.transpose(0, 1))
    options = {
        "GradientShap": {"baselines": torch.zeros(2, 5, 3)},
        "Occlusion": {"sliding_window_shapes": (1, 3)},
    }
    got = getattr(captum.attr, method)(model).attribute(x, target=1, **options.get(method, {}))
    assert got.shape == x.shape and got.isfinite().all() and got.abs().sum() > 0


# ---- occlusion -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("window, stride", [(1, None), (2, None), (3, 2)])
def test_occlusion_is_one_run_without(window, stride):
    m, x = Last(), torch.randn(7, 2, 3, dtype=torch.float64)
    got = inspect.occlusion(m, x, 1, window=window, stride=stride, baseline=0.25)
    m.eval()
    begins = range(0, 7, stride or window)
    assert got.shape == (len(begins), 2)
    for w, begin in enumerate(begins):
        without = x.clone()
        without[begin : begin + window] = 0.25
        close(got[w], (m(x) - m(without))[:, 1], "value")


def test_occlusion_of_tokens():
    m, tokens = Tokens(), torch.randint(1, 11, (2, 5))
    got = inspect.occlusion(m, tokens, torch.tensor([0, 3]), baseline=0, batch_dim=0, time_dim=1)
    without = tokens.clone()
    without[:, 4] = 0
    close(got[4], (m(tokens) - m(without))[[0, 1], [0, 3]], "value")
    with pytest.raises(ValueError, match="time_dim"):
        inspect.occlusion(m, tokens, 0, batch_dim=0, time_dim=0)


# ---- contextual decomposition --------------------------------------------------------------------------


def by_scalars(m, x, phrase, head):
    """One layer, one sequence, the paper's equations number by number: (beta, gamma) of every logit."""
    W, R, b_ih, b_hh, _ = (None if w is None else w.detach() for w in m._weights(0))
    H = m.hidden_size
    s, tanh = torch.sigmoid, torch.tanh
    bias = b_ih + b_hh
    hb, hg, cb, cg = ([0.0] * H for _ in range(4))
    for t in range(len(x)):
        inside = phrase[0] <= t < phrase[1]
        new = []
        for u in range(H):
            parts = []
            for k, f in enumerate((s, s, tanh)):
                row = k * H + u
                of_x = sum(W[row, i] * x[t, i] for i in range(x.shape[1]))
                rel = sum(R[row, v] * hb[v] for v in range(H)) + (of_x if inside else 0)
                irr = sum(R[row, v] * hg[v] for v in range(H)) + (0 if inside else of_x)
                rel, irr, b = (torch.as_tensor(q, dtype=torch.float64) for q in (rel, irr, bias[row]))
                orders = [(rel, irr), (irr, rel)]
                of_rel = [f(rel + b) - f(b), f(rel + irr + b) - f(irr + b)]
                of_irr = [f(rel + irr + b) - f(rel + b), f(irr + b) - f(b)]
                assert len(orders) == 2
                parts.append((sum(of_rel) / 2, sum(of_irr) / 2, f(b)))
            (i_r, i_i, i_b), (f_r, f_i, f_b), (g_r, g_i, g_b) = parts
            c_rel = f_r * cb[u] + f_b * cb[u] + i_r * g_r + i_r * g_b + i_b * g_r
            c_irr = f_i * cb[u] + (f_r + f_i + f_b) * cg[u]
            c_irr = c_irr + i_i * g_r + i_i * g_i + i_i * g_b + i_r * g_i + i_b * g_i
            if inside:
                c_rel = c_rel + i_b * g_b
            else:
                c_irr = c_irr + i_b * g_b
            row = 3 * H + u
            o = s(
                bias[row]
                + sum(W[row, i] * x[t, i] for i in range(x.shape[1]))
                + sum(R[row, v] * (hb[v] + hg[v]) for v in range(H))
            )
            h_rel = o * (tanh(c_rel) + tanh(c_rel + c_irr) - tanh(c_irr)) / 2
            h_irr = o * (tanh(c_irr) + tanh(c_rel + c_irr) - tanh(c_rel)) / 2
            new.append((h_rel, h_irr, c_rel, c_irr))
        hb, hg, cb, cg = map(list, zip(*new, strict=True))
    return head.weight @ torch.stack(hb), head.weight @ torch.stack(hg)


@pytest.mark.parametrize("phrase", [(0, 1), (1, 3), (3, 4), (0, 4)])
def test_decomposition_is_the_papers(phrase):
    m, head = fusegen.nn.LSTM(2, 3, dtype=torch.float64), nn.Linear(3, 2, dtype=torch.float64)
    x = torch.randn(4, 1, 2, dtype=torch.float64)
    got = inspect.contextual_decomposition(m, x, lambda y: head(y[-1]), [phrase])
    beta, gamma = by_scalars(m, x[:, 0], phrase, head)
    close(got.relevant[0, 0], beta, "value")
    close(got.irrelevant[0, 0], gamma, "value")
    close(got.bias, head.bias, "value")


STACKS = [
    {},
    {"num_layers": 2, "bidirectional": True, "batch_first": True},
    {"proj_size": 4, "bias": False},
    {"dtype": torch.float64, "bidirectional": True},
]


@pytest.mark.parametrize("lengths", [None, [7, 2, 5]], ids=["full", "ragged"])
@pytest.mark.parametrize("options", STACKS, ids=str)
def test_decomposition_sums_to_the_logit(options, lengths):
    m = fusegen.nn.LSTM(3, 6, **options).eval()
    dtype = options.get("dtype", torch.float32)
    width = (2 if m.bidirectional else 1) * (m.proj_size or 6)
    head = nn.Linear(width, 5, dtype=dtype)
    x = torch.randn(3, 7, 3, dtype=dtype) if m.batch_first else torch.randn(7, 3, 3, dtype=dtype)
    state = tuple(
        torch.randn((2 if m.bidirectional else 1) * m.num_layers, 3, n, dtype=dtype)
        for n in (m.proj_size or 6, 6)
    )
    read = lambda y: head(y.mean(1 if m.batch_first else 0))
    for hx in (None, state):
        logits = read(m(x, hx, lengths=lengths)[0])
        got = inspect.contextual_decomposition(m, x, read, hx=hx, lengths=lengths)
        assert got.relevant.shape == (7, 3, 5)
        apart = (got.relevant + got.irrelevant + got.bias - logits).abs().max()
        assert apart <= 1e-4
        steps = inspect.logit_by_step(m, x, read, hx=hx, lengths=lengths)
        assert steps.steps.shape == (7, 3, 5)
        assert (steps.steps.sum(0) + steps.rest + steps.bias - logits).abs().max() <= 1e-4
        if hx is None:
            assert steps.rest.abs().max() <= 1e-6


def test_decomposition_of_a_next_token_model():
    m = fusegen.models.TextLSTM(vocab_size=13, embedding_size=5, hidden_size=8, num_layers=2).eval()
    tokens = torch.randint(13, (9, 2))
    e = m.embedding(tokens)
    read = lambda y: m.decoder(m.projection(y[-1]))
    got = inspect.logit_by_step(m.rnn, e, read)
    assert (got.steps.sum(0) + got.bias - m(tokens)[0][-1]).abs().max() <= 1e-4


def test_a_step_that_brings_nothing_has_nothing():
    """With no biases and an input of zeros at a step, its share is zero, and a phrase of all is the logit."""
    m, head = fusegen.nn.LSTM(2, 3, bias=False, dtype=torch.float64), nn.Linear(3, 2, dtype=torch.float64)
    x = torch.randn(5, 1, 2, dtype=torch.float64)
    x[2] = 0
    got = inspect.contextual_decomposition(m, x, lambda y: head(y[-1]), [(2, 3), (0, 5)])
    assert got.relevant[0].abs().max() < 1e-12 and got.irrelevant[1].abs().max() < 1e-12


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_decomposition_in_16_bits_sums_to_the_logit(dtype):
    m = Last(dtype=dtype).eval()
    x = torch.randn(9, 2, 3, dtype=dtype)
    with torch.no_grad():
        got, want = inspect.logit_by_step(m.rnn, x, lambda y: m.head(y[-1])), m(x)
    whole = got.steps.double().sum(0) + got.rest.double() + got.bias.double()
    assert torch.allclose(whole, want.double(), atol=16 * torch.finfo(dtype).eps)


@pytest.mark.parametrize(
    "layer, options, error, said",
    [
        (fusegen.nn.GRU(3, 4), {}, TypeError, r"a fusegen\.nn\.LSTM, got GRU"),
        (nn.LSTM(3, 4), {}, TypeError, r"got torch\.nn\.LSTM: fusegen\.convert"),
        (fusegen.nn.LayerNormLSTM(3, 4), {}, TypeError, "got LayerNormLSTM"),
        (fusegen.nn.LSTM(3, 4, zoneout=(0.1, 0.0)), {}, ValueError, "without zoneout"),
        (fusegen.nn.LSTM(3, 4), {"phrases": [(2, 2)]}, ValueError, "not empty"),
        (fusegen.nn.LSTM(3, 4), {"phrases": [(3, 6)]}, ValueError, r"within 0\.\.5"),
        (fusegen.nn.LSTM(3, 4), {"phrases": []}, ValueError, "at least one"),
        (fusegen.nn.LSTM(3, 4), {"readout": lambda y: y[-1].square()}, ValueError, "affine"),
        (
            fusegen.nn.LSTM(3, 4, dtype=torch.bfloat16),
            {"readout": lambda y: 4 * y[-1].square() + 1},
            ValueError,
            "affine",
        ),
        (fusegen.nn.LSTM(3, 4), {"readout": lambda y: y}, ValueError, r"\[batch, classes\]"),
    ],
)
def test_decomposition_of_bad_input(layer, options, error, said):
    options = {"readout": lambda y: y[-1]} | options
    with pytest.raises(error, match=said):
        inspect.contextual_decomposition(layer, torch.randn(5, 2, 3), **options)


def test_completeness_of_a_linear_model_is_exact():
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    w = torch.randn(3, dtype=torch.float64)
    got = inspect.integrated_gradients(lambda x: (x @ w).sum(0), x, lambda out: out, with_captum=False)
    near(got.gap.max().item(), 0.0, dtype=torch.float64)
