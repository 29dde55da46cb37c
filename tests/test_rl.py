"""fusegen.rl: the call that sb3-contrib's and cleanrl's recurrent policies make, and their training."""

import importlib
import importlib.util
import re
from pathlib import Path

import pytest
import torch
from cases import layer
from fusegen import rl
from tolerances import close, same
from torch.nn.utils import parameters_to_vector

T, B, I, H = 9, 4, 3, 5
PAGE = Path(__file__).parent.parent / "docs/rl.md"


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def by_step(m, x, states, starts):
    """x [T, B, I], starts [T, B]: a call a step, as they loop."""
    out = []
    for one, start in zip(x, starts, strict=True):
        keep = (~start).view(1, -1, 1)
        states = tuple(s * keep for s in states) if isinstance(states, tuple) else states * keep
        y, states = m(one.unsqueeze(0), states)
        out.append(y)
    return torch.cat(out), states


@pytest.mark.parametrize("kind", [torch.bool, torch.float32])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(("name", "layers"), [("LSTM", 1), ("LSTM", 2), ("GRU", 1), ("RNN_TANH", 1)])
def test_rows_with_starts_of_episodes(name, layers, batch_first, kind):
    m = layer(name, I, H, num_layers=layers, dtype=torch.float64)
    x, starts = torch.randn(T, B, I, dtype=torch.float64), torch.rand(T, B) < 0.3
    h = torch.randn(layers, B, H, dtype=torch.float64)
    states = (h, h * 0.5) if name == "LSTM" else h
    want, final = by_step(m, x, states, starts)
    flat = [(t.transpose(0, 1) if batch_first else t).flatten(0, 1) for t in (x, starts, want)]
    y, got = rl.run(m, flat[0], states, flat[1].to(kind), batch_first=batch_first)
    close(y, flat[2], "value")
    close(got, final, "value")
    of = [torch.autograd.grad(t.square().sum(), list(m.parameters()), retain_graph=True) for t in (y, want)]
    close(list(of[0]), list(of[1]), "grad")


def test_what_does_not_fit_is_refused():
    m, states = layer("LSTM", I, H), (torch.zeros(1, B, H), torch.zeros(1, B, H))
    with pytest.raises(
        ValueError, match=r"rl.run: expected rows .* a multiple of the 4 sequences .* \(7, 3\)"
    ):
        rl.run(m, torch.randn(7, I), states, torch.zeros(7))
    for wrong in (torch.zeros(7), torch.zeros(2, B), torch.zeros(B, 2)):  # whose order would be a guess
        with pytest.raises(ValueError, match=rf"starts of shape \(8,\), .* got \({wrong.shape[0]},"):
            rl.run(m, torch.randn(8, I), states, wrong)
    with pytest.raises(
        TypeError, match="expected a recurrent policy class of sb3-contrib, got <class 'int'>"
    ):
        rl.fused_policy(int)


@pytest.mark.parametrize("option", ["batch_first", "bidirectional"])
def test_a_layer_that_reads_rows_otherwise_is_refused(option):
    m = layer("GRU", I, H, **{option: True})
    with pytest.raises(ValueError, match=f"rl.run: expected a layer with {option}=False, got GRU with True"):
        rl.run(m, torch.randn(B * B, I), torch.zeros(1, B, H), torch.zeros(B * B))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"layer": torch.nn.GRU(I, H)},
            "expected a layer of fusegen.nn, which fusegen.convert makes .* got GRU",
        ),
        ({"layer": torch.nn.GRUCell(I, H)}, "expected a layer of fusegen.nn, .* got GRUCell"),
        ({"states": None}, r"expected states as the layer takes them, .* got NoneType"),
        ({"states": torch.zeros(B, H)}, r"expected states as the layer takes them, .* got 2-D"),
        ({"starts": None}, "expected starts to be a Tensor, got NoneType"),
        ({"features": [1.0]}, "expected features to be a Tensor, got list"),
    ],
)
def test_what_is_of_another_kind_is_refused(change, said):
    given = {
        "layer": layer("GRU", I, H), "features": torch.randn(8, I), "states": torch.zeros(1, B, H),
        "starts": torch.zeros(8),
    } | change  # fmt: skip
    with pytest.raises(TypeError, match=f"rl.run: {said}"):
        rl.run(**given)


@pytest.fixture
def sb3():
    for name in ("gymnasium", "stable_baselines3", "sb3_contrib"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed (pip install 'fusegen[rl]')")
    return importlib.import_module("sb3_contrib"), importlib.import_module(
        "sb3_contrib.ppo_recurrent.policies"
    )


def ppo(contrib, policy, **options):
    options = {
        "n_steps": 64,
        "batch_size": 64,
        "n_epochs": 2,
        "learning_rate": 0.1,
        "seed": 0,
        "device": "cpu",
    } | options
    # Adam would make of a gradient near zero, whatever its rounding, a step as long as any
    kwargs = {"lstm_hidden_size": 16, "optimizer_class": torch.optim.SGD}
    return contrib.RecurrentPPO(policy, "CartPole-v1", policy_kwargs=kwargs, **options)


def test_recurrent_ppo_trains_as_its_own(sb3):
    """The same weights, rollouts and losses, from the same seed, for a few updates."""
    contrib, policies = sb3
    fused = rl.fused_policy(policies.MlpLstmPolicy)
    assert fused is rl.fused_policy(policies.MlpLstmPolicy)
    ours, theirs = ppo(contrib, fused), ppo(contrib, policies.MlpLstmPolicy)
    assert type(ours.policy.lstm_actor).__module__ == "fusegen.nn.lstm"
    ours.policy.load_state_dict(theirs.policy.state_dict())
    initial = parameters_to_vector(ours.policy.parameters()).detach()
    for model in (ours, theirs):
        model.set_random_seed(0)
        model.learn(128)
    got, want = (parameters_to_vector(model.policy.parameters()).detach() for model in (ours, theirs))
    same(got - initial, want - initial, "what training changed")
    assert not torch.equal(got, initial)


def test_recurrent_ppo_is_saved_and_loaded(sb3, tmp_path):
    contrib, policies = sb3
    model = ppo(contrib, rl.fused_policy(policies.MlpLstmPolicy)).learn(64)
    model.save(tmp_path / "model")
    again = contrib.RecurrentPPO.load(tmp_path / "model", device="cpu")
    observation = model.get_env().reset()
    assert (
        model.predict(observation, deterministic=True)[0] == again.predict(observation, deterministic=True)[0]
    ).all()
    ppo(contrib, policies.MlpLstmPolicy).policy.load_state_dict(model.policy.state_dict())


def block(word):
    """The page's code with this word in it."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    (code,) = [block for block in blocks if word in block]
    return code


def test_truncated_backpropagation_of_the_page_runs():
    names = {}
    exec(compile(block("layer.zeros"), str(PAGE), "exec"), names)
    assert names["begin"] == 80 and not names["state"][0].requires_grad


def example(steps):
    """What the page's example of RecurrentPPO ends with."""
    code = block("from sb3_contrib import RecurrentPPO")
    changed, n = re.subn(r"learn\([\d_]+\)", f"learn({steps})", code)
    assert n == 1
    names = {}
    exec(compile(changed, str(PAGE), "exec"), names)
    return names


def test_the_example_runs(sb3):
    assert example(512)["mean"] > 0


@pytest.mark.slow
def test_the_example_learns(sb3):
    """A pole whose velocities are hidden, which without a memory falls after some 40 steps at best."""
    assert example(40_000)["mean"] > 100
