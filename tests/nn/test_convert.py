"""fusegen.convert, fusegen.revert and fusegen.frozen."""

import copy
import pickle
import warnings

import fusegen
import pytest
import torch
from cases import CELL_NAMES, CELLS, cell, flat, layer
from tolerances import agree
from torch import nn
from torch.nn.utils import parametrizations, parametrize


class Tagger(nn.Module):
    """Layers at several depths, one shared, cells, and things that are not recurrent."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.lstm = nn.LSTM(6, 8, num_layers=2, batch_first=True)
        self.deep = nn.ModuleDict({"a": nn.ModuleList([nn.GRU(8, 8), nn.Sequential(nn.Linear(8, 8))])})
        self.again = self.deep["a"][0]
        self.rnn = nn.RNN(8, 5, nonlinearity="relu")
        self.cells = nn.ModuleList(
            [nn.LSTMCell(5, 5), nn.GRUCell(5, 5), nn.RNNCell(5, 5, nonlinearity="relu")]
        )

    def forward(self, words):
        x, _ = self.lstm(self.embed(words))
        x, _ = self.again(x)
        x, _ = self.rnn(x)
        h, _ = self.cells[0](x[0])
        return self.cells[2](self.cells[1](h))


class OwnForward(nn.LSTM):
    def forward(self, x):
        return super().forward(x)[0] * 2


def test_a_model_there_and_back():
    model = Tagger().eval()
    words = torch.randint(11, (3, 4))
    want = model(words)
    parameters, modules = list(model.parameters()), list(model.modules())
    names = [type(m).__name__ for m in modules]
    optimiser = torch.optim.SGD(model.parameters(), 0.1)

    assert fusegen.convert(model) is model
    ours = [m for m in modules if type(m).__module__.startswith("fusegen")]
    assert [type(m).__name__ for m in ours] == ["LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"]
    assert all(a is b for a, b in zip(modules, model.modules(), strict=True))
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert model.again is model.deep["a"][0]
    assert not any(m.training for m in model.modules())
    torch.testing.assert_close(model(words), want)

    model(words).sum().backward()  # the optimiser made before moves the converted model
    optimiser.step()
    moved = model(words)
    assert not torch.allclose(moved, want)

    assert fusegen.revert(model) is model
    assert [type(m).__name__ for m in model.modules()] == names
    assert not any(type(m).__module__.startswith("fusegen") for m in model.modules())
    torch.testing.assert_close(model(words), moved)


@pytest.mark.parametrize(("make", "cell_name"), [(layer, k) for k in CELL_NAMES] + [(cell, k) for k in CELLS])
def test_the_model_itself(make, cell_name):
    m = make(cell_name, 5, 6, own=False)
    x = torch.randn(*((4, 3, 5) if make is layer else (3, 5)))
    want = m(x)
    assert fusegen.convert(m) is m
    assert isinstance(m, getattr(fusegen.nn, cell_name.partition("_")[0]))
    torch.testing.assert_close(m(x), want)
    assert fusegen.convert(m) is m
    for twin in (copy.deepcopy(m), pickle.loads(pickle.dumps(m))):
        assert type(twin) is type(m)
        torch.testing.assert_close(twin(x), want)
    fusegen.revert(m)
    torch.testing.assert_close(m(x), want)
    torch.testing.assert_close(copy.deepcopy(m)(x), want)


def test_hooks_stay():
    m, calls = nn.GRU(5, 6), []
    handle = m.register_forward_hook(lambda mod, args, out: calls.append(type(mod)))
    m.register_full_backward_hook(lambda *a: calls.append("backward"))
    fusegen.convert(m)
    m(torch.randn(4, 3, 5, requires_grad=True))[0].sum().backward()
    assert calls == [fusegen.nn.GRU, "backward"]
    handle.remove()
    m(torch.randn(4, 3, 5))
    assert len(calls) == 2


def test_parametrized():
    m = nn.LSTM(5, 6)
    parametrizations.weight_norm(m, "weight_hh_l0")
    x = torch.randn(4, 3, 5)
    want = m(x)
    names = [n for n, _ in m.named_parameters()]
    fusegen.convert(m)
    assert isinstance(m, fusegen.nn.LSTM)
    assert parametrize.is_parametrized(m, "weight_hh_l0")
    assert names == [n for n, _ in m.named_parameters()]
    torch.testing.assert_close(m(x), want)
    m.parametrizations.weight_hh_l0.original0.data.mul_(2)
    assert not torch.allclose(m(x)[0], want[0])
    moved = m(x)
    torch.testing.assert_close(copy.deepcopy(m)(x), moved)
    fusegen.revert(m)
    assert isinstance(m, nn.LSTM)
    torch.testing.assert_close(m(x), moved)
    fusegen.convert(m)
    parametrize.remove_parametrizations(m, "weight_hh_l0")
    assert type(m) is fusegen.nn.LSTM
    torch.testing.assert_close(m(x), moved)


def test_old_weight_norm():
    m = nn.GRU(5, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.weight_norm(m, "weight_hh_l0")
    x = torch.randn(4, 3, 5)
    want = m(x)
    fusegen.convert(m)
    torch.testing.assert_close(m(x), want)
    m.weight_hh_l0_g.data.mul_(2)
    assert not torch.allclose(m(x)[0], want[0])


def test_own_forward_is_left_alone_and_reported():
    model = nn.ModuleDict({"mine": OwnForward(5, 6), "plain": nn.LSTM(5, 6)})
    with pytest.warns(UserWarning, match=r"mine \(\S*test_convert\.OwnForward\)"):
        fusegen.convert(model)
    assert type(model["mine"]) is OwnForward
    assert type(model["plain"]) is fusegen.nn.LSTM


def test_report_says_what_was_changed_and_what_was_left_and_why(capsys):
    quantized = torch.ao.nn.quantized.dynamic.LSTMCell(5, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        scripted = torch.jit.script(nn.GRU(5, 6))
    parts = {"plain": nn.LSTM(5, 6), "mine": OwnForward(5, 6), "int8": quantized, "script": scripted}
    model = nn.ModuleDict(parts)
    texts = []
    with pytest.warns(UserWarning, match="mine"):
        assert fusegen.convert(model, report=texts.append) is model
    lines = texts[0].splitlines()
    assert lines[0] == "fusegen.convert: 1 changed, 3 left" and "plain: LSTM" in lines[1]
    for line, name, why in zip(
        lines[2:], ("mine", "int8", "script"), ("forward", "quantized", "scripted"), strict=True
    ):
        assert f" {name} (" in line and why in line
    assert not capsys.readouterr().out
    fusegen.convert(nn.Linear(2, 2), report=True)
    assert "nothing recurrent" in capsys.readouterr().out


class OwnInit(nn.GRU):
    """A user's subclass that only fills in sizes and one method."""

    def __init__(self):
        super().__init__(5, 6)

    def extra_repr(self):
        return "mine"


def test_subclass_without_a_forward():
    m, x = OwnInit(), torch.randn(4, 3, 5)
    want = m(x)
    fusegen.convert(m)
    assert isinstance(m, fusegen.nn.GRU)
    assert isinstance(m, OwnInit)
    assert repr(m) == "OwnInit(mine)"
    torch.testing.assert_close(m(x), want)
    m(x, lengths=[1, 2, 3])
    for twin in (copy.deepcopy(m), pickle.loads(pickle.dumps(m))):
        assert type(twin) is type(m)
        torch.testing.assert_close(twin(x), want)
    fusegen.revert(m)
    assert type(m) is OwnInit
    torch.testing.assert_close(m(x), want)


def test_not_a_module():
    for f in (fusegen.convert, fusegen.revert):
        with pytest.raises(TypeError, match=r"expected model to be a torch\.nn\.Module, got list"):
            f([nn.LSTM(5, 6)])
    with pytest.raises(TypeError, match=r"expected a torch\.nn\.Module, got int"), fusegen.frozen(3):
        pass


# ---------------------------------------------------------------- frozen


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_frozen_layers_give_the_same(cell_name, dtype):
    more = {"proj_size": 5} if cell_name == "LSTM" else {}
    m = layer(cell_name, 19, 24, num_layers=2, bidirectional=True, dtype=dtype, **more)
    for B in (1, 13):
        x = torch.randn(4, B, 19).to(dtype)
        with torch.no_grad():
            want = m(x)
            with fusegen.frozen(m) as inside:
                assert inside is m
                got = m(x)
                assert all(torch.equal(a, b) for a, b in zip(flat(m(x)), flat(got), strict=True))
            agree(got, want)
            assert m._frozen is None


@pytest.mark.parametrize("cell_name", CELLS)
def test_frozen_cells_give_the_same(cell_name):
    m, x = cell(cell_name, 19, 24), torch.randn(13, 19)
    with torch.no_grad():
        want = m(x)
        with fusegen.frozen(m):
            agree(m(x), want)


@pytest.mark.parametrize(
    ("B", "H", "packed"), [(1, 300, False), (2, 300, False), (3, 80, False), (3, 90, True), (8, 32, True)]
)
@pytest.mark.parametrize("made", [layer, cell])
def test_frozen_single_steps_are_packed_where_that_pays(made, B, H, packed):
    """Elsewhere weights are read as they lie: the bits of a call outside, and no change is missed."""
    m = made("GRU" if made is layer else "GRUCell", 7, H)
    x = torch.randn(1, B, 7) if made is layer else torch.randn(B, 7)
    with torch.no_grad(), fusegen.frozen(m):
        m(x)
        next(m.parameters()).mul_(2)
        if packed:
            with pytest.raises(RuntimeError, match=r"fusegen\.frozen: weight_ih.* changed inside the with"):
                m(x)
            return
        inside = m(x)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(flat(inside), flat(m(x)), strict=True))


def test_frozen_with_gradients_reads_the_weights():
    m, x = layer("LSTM", 5, 6), torch.randn(4, 3, 5, requires_grad=True)
    want = torch.autograd.grad(m(x)[0].sum(), [x, *m.parameters()])
    with fusegen.frozen(m):
        got = torch.autograd.grad(m(x)[0].sum(), [x, *m.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_frozen_notices_changed_weights():
    m, x = layer("GRU", 5, 6), torch.randn(4, 3, 5)
    state = copy.deepcopy(m.state_dict())
    with torch.no_grad():
        for change in (
            lambda: m.weight_hh_l0.mul_(2),
            lambda: m.load_state_dict(state),
            lambda: setattr(m.weight_ih_l0, "data", torch.randn_like(m.weight_ih_l0)),
            lambda: m.double().float(),
            lambda: setattr(m, "weight_hh_l0", nn.Parameter(torch.randn_like(m.weight_hh_l0))),
        ):
            with fusegen.frozen(m):
                m(x)
                change()
                with pytest.raises(RuntimeError, match=r"fusegen\.frozen: weight_.h_l0 of a GRU changed"):
                    m(x)
            m(x)


def test_frozen_notices_new_memory_at_once():
    # A freed weight's address is the first that the allocator gives out again.
    m, x = layer("GRU", 64, 64), torch.randn(4, 3, 64)
    with torch.no_grad():
        for _ in range(20):
            with fusegen.frozen(m):
                m.weight_ih_l0.data = m.weight_ih_l0.data.half()
                m.weight_ih_l0.data = m.weight_ih_l0.data.float()
                with pytest.raises(RuntimeError, match="weight_ih_l0 of a GRU changed"):
                    m(x)


def test_frozen_nests_and_leaves_after_errors():
    model = nn.Sequential(layer("GRU", 5, 6))
    with pytest.raises(ZeroDivisionError), fusegen.frozen(model), fusegen.frozen(model[0]):
        raise ZeroDivisionError
    assert model[0]._frozen is None
    with fusegen.frozen(model):
        with fusegen.frozen(model[0]):
            assert model[0]._frozen is not None
        assert model[0]._frozen is not None
        assert copy.deepcopy(model)[0]._frozen is None


def test_frozen_leaves_parametrized_layers():
    m, x = layer("LSTM", 5, 6), torch.randn(4, 3, 5)
    parametrizations.weight_norm(m, "weight_hh_l0")
    with torch.no_grad(), fusegen.frozen(m):
        before = m(x)[0]
        m.parametrizations.weight_hh_l0.original0.mul_(2)
        assert not torch.allclose(m(x)[0], before)


def test_frozen_under_autocast():
    m, x = layer("LSTM", 5, 6), torch.randn(4, 3, 5)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        want = m(x)
        with fusegen.frozen(m):
            assert all(torch.equal(a, b) for a, b in zip(flat(m(x)), flat(want), strict=True))


@pytest.mark.parametrize("cell_name", ["LSTM", "GRUCell"])
def test_frozen_leaves_weights_made_in_inference_mode(cell_name):
    """torch counts no changes of theirs, so each call reads them."""
    with torch.inference_mode():
        m, x = cell(cell_name, 5, 6) if cell_name in CELLS else layer(cell_name, 5, 6), torch.randn(3, 5)
        with fusegen.frozen(m):
            before = flat(m(x))[0]
            next(m.parameters()).mul_(3)
            after = flat(m(x))[0]
        assert not torch.equal(after, before)
        assert torch.equal(after, flat(m(x))[0])


def test_frozen_notices_a_change_in_inference_mode():
    m, x = layer("GRU", 5, 6), torch.randn(4, 3, 5)
    with torch.inference_mode(), fusegen.frozen(m):
        m(x)
        m.weight_hh_l0.mul_(2)
        with pytest.raises(RuntimeError, match=r"weight_hh_l0 of a GRU changed"):
            m(x)
