"""What "auto" leaves to torch on a CPU: the calls of the committed table, on the machines it is about."""

import copy

import fusegen
import pytest
import torch
from fusegen import _C, _backend, _choice, _cpu_rules, _info
from fusegen.gan import discriminator_step
from fusegen.ops import torch_path
from gan_networks import dense as dense_network
from tolerances import agree, near
from torch import nn

THREADS = 2  # some rules are of two

ISA, VENDOR = _C.float_isa(), _C.machine()["vendor"]
I, H, B, T = 7, 16, 4, 5


def dense():
    return dense_network((6, 9, 8, 1))


def rule(cell, dtype="float32", train=False, H=_choice.ANY, B=_choice.ANY, T=_choice.ANY, **more):
    return _choice.Rule("cpu", cell, dtype, train, H=H, B=B, T=T, source="made-up.csv", **more)


@pytest.fixture
def auto(monkeypatch):
    """A function: these rules are the table, under "auto"."""
    fusegen.set_backend("auto")
    return lambda *rules: monkeypatch.setattr(_choice, "RULES", rules)


@pytest.fixture
def on_torch(monkeypatch):
    """How many calls of layers and cells went to torch."""
    seen = []
    for name in ("layers", "cell"):
        own = getattr(torch_path, name)
        monkeypatch.setattr(torch_path, name, lambda *a, own=own, **k: seen.append(a[0]) or own(*a, **k))
    return seen


def call(cell, batch=B, steps=T, grad=False, size=I, **more):
    """One call of a module of this kind, in inference unless ``grad``."""
    kind = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN"}[cell.removesuffix("_cell")]
    is_cell = cell.endswith("_cell")
    m = getattr(fusegen.nn, kind + "Cell" * is_cell)(size, H)
    with torch.set_grad_enabled(grad):
        return m(torch.randn(batch, size) if is_cell else torch.randn(steps, batch, size), **more)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn", "lstm_cell", "gru_cell", "rnn_cell"])
def test_each_layer_and_cell_has_rules_of_its_own(cell, auto, on_torch):
    others = [c for c in _info.CELLS if c != cell]
    auto(*(rule(c) for c in others), *(rule(cell, train=True), rule(cell, "float64")))
    call(cell)
    assert not on_torch
    auto(*(rule(c) for c in others), rule(cell, H=(16, 16), B=(4, 4), I=(7, 7)))
    call(cell)
    assert len(on_torch) == 1
    for more in ({"grad": True}, {"batch": 5}, {"size": 8}):
        call(cell, **more)
    assert len(on_torch) == 1
    fusegen.set_backend("fused")
    call(cell)
    assert len(on_torch) == 1


def test_the_functional_forms_obey_too(auto, on_torch):
    auto(rule("lstm"), rule("gru_cell"))
    W = [torch.randn(4 * H, I), torch.randn(4 * H, H), None, None]
    fusegen.ops.lstm(torch.randn(T, B, I), None, None, [*W, None])
    fusegen.ops.gru_cell(torch.randn(B, I), None, [w and None if w is None else w[: 3 * H] for w in W])
    assert on_torch == ["lstm", "gru"]


@pytest.mark.parametrize(
    ("isa", "vendor", "holds"),
    [
        (None, None, True), (ISA, VENDOR, True), (ISA, None, True), (None, VENDOR, True),
        ("another", VENDOR, False), (ISA, "another", False),
        ("another", None, False), (None, "another", False),
    ],
)  # fmt: skip
def test_rules_of_another_machine_do_not_apply(isa, vendor, holds, auto, on_torch):
    auto(
        rule("lstm", isa=isa, vendor=vendor),
        rule("discriminator_step none", train=True, isa=isa, vendor=vendor),
    )
    call("lstm")
    D = dense()
    out = discriminator_step(D, torch.randn(4, 6), torch.randn(4, 6))
    assert len(on_torch) == holds and out.path == ("autograd" if holds else "fused_mlp")
    asked = _backend.cpu_rule("lstm", I, H, B, T, dtype=torch.float32, train=False)
    assert (asked is not None) == holds
    report = fusegen.info()
    assert ("1 measured range" in report or "2 measured range" in report) == holds
    assert (f"nothing measured faster on torch with {ISA} on {VENDOR}" in report) != holds


def test_rules_follow_the_threads(auto, on_torch):
    auto(rule("lstm", threads=(2, 3)))
    for threads, holds in ((1, False), (2, True), (1, False)):
        torch.set_num_threads(threads)
        before = len(on_torch)
        call("lstm")
        assert len(on_torch) - before == holds


def test_a_ragged_batch_stays(auto, on_torch):
    """Measured are full batches, and ragged ones cost torch far more."""
    auto(rule("lstm"))
    call("lstm", lengths=[5, 3, 2, 1])
    assert not on_torch
    call("lstm")
    assert on_torch


def test_under_autocast_the_dtype_is_what_is_computed_in(auto, on_torch):
    auto(rule("lstm"))
    with torch.autocast("cpu", torch.bfloat16):
        call("lstm")
        assert not on_torch
        auto(rule("lstm", "bfloat16"))
        call("lstm")
    assert len(on_torch) == 1
    call("lstm")
    assert len(on_torch) == 1


def test_compiled_calls_obey_with_sizes_that_vary(auto):
    auto(rule("gru", B=(1, 5), isa=ISA, vendor=VENDOR))
    m, names = fusegen.nn.GRU(I, H), []

    def backend(graph, _):
        names.append({str(node.target) for node in graph.graph.nodes if node.op == "call_function"})
        return graph

    compiled = torch.compile(m, backend=backend, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for batch in (3, 4, 5, 6, 9):
            compiled(torch.randn(T, batch, I))
    assert len(names) == 2  # one graph on each side of the rule
    assert not any("fusegen" in name for name in names[0]) and any("fusegen" in name for name in names[1])


def test_answers_are_kept_but_not_without_end(auto, monkeypatch):
    monkeypatch.setattr(_backend, "_ANSWERS", 3)
    auto(rule("lstm", B=(3, 4)))
    for _ in range(2):
        for batch in range(1, 9):
            found = _backend.cpu_rule("lstm", I=I, H=H, B=batch, T=T, dtype=torch.float32, train=False)
            assert (found is not None) == (batch in (3, 4))
            assert len(_backend._table().answers) <= 3


# ---------------------------------------------------------------- the discriminator step


@pytest.mark.parametrize("penalty", ["none", "r1", "r2", "gp"])
def test_a_step_left_to_torch_is_the_same_step(penalty, auto):
    weights = {} if penalty == "none" else {penalty: 2.0}
    D = dense().double()
    real, fake = (torch.randn(5, 6, dtype=torch.float64).requires_grad_() for _ in range(2))
    auto(rule("discriminator_step " + penalty.replace("r2", "r1"), "float64", True))
    outs, grads = [], []
    for backend, path in (("auto", "autograd"), ("fused", "fused_mlp")):
        fusegen.set_backend(backend)
        out = discriminator_step(D, real, fake, generator=torch.Generator().manual_seed(3), **weights)
        assert out.path == path
        outs.append(out)
        grads.append(torch.autograd.grad(out.loss, [*D.parameters(), real, fake]))
    why = "PyTorch measured faster at this size (made-up.csv); set_backend('fused') runs the kernels anyway"
    assert outs[0].reason == why
    agree(grads[0], grads[1])
    for name in ("loss", "penalty", "real_logits", "fake_logits"):
        agree(getattr(outs[0], name), getattr(outs[1], name))
    for name, value in outs[0].stats.items():
        near(value, outs[1].stats[name], name, dtype=torch.float64)


def step(D=None, batch=4, width=6, **options):
    D = dense() if D is None else D
    return discriminator_step(D, torch.randn(batch, width), torch.randn(batch, width), **options).path


def test_a_step_goes_by_rows_weights_layers_and_penalty(auto):
    D = dense()
    widths = [m.weight.numel() for m in D if isinstance(m, nn.Linear)]
    size, layers = sum(widths), len(widths)
    fits = {"train": True, "H": (size, size), "B": (4, 4), "I": (layers, layers)}
    auto(rule("discriminator_step none", **fits))
    assert step(D) == "autograd"
    assert step(D, batch=5) == "fused_mlp" and step(D, r1=1.0) == "fused_mlp"
    auto(rule("discriminator_step none", **{**fits, "H": (size + 1, size + 1)}))
    assert step(D) == "fused_mlp"
    auto(rule("discriminator_step none", **{**fits, "I": (1, layers - 1)}))
    assert step(D) == "fused_mlp"
    auto(rule("discriminator_step r1", **fits), rule("discriminator_step gp", **fits))
    assert step(D) == "fused_mlp"
    assert step(D, r1=1.0) == step(D, r2=1.0) == step(D, gp=1.0) == "autograd"
    assert step(D, r1=1.0, gp=1.0) == "fused_mlp"  # not measured together
    fusegen.set_backend("fused")
    assert step(D, r1=1.0) == "fused_mlp"


def test_steps_that_were_not_measured_stay(auto):
    auto(*(rule(f"discriminator_step {penalty}", train=True) for penalty in ("none", "r1", "gp")))
    assert step() == "autograd"
    with torch.no_grad():
        assert step() == "fused_mlp"
    with torch.autocast("cpu", torch.bfloat16):
        assert step() == "fused_mlp"
    assert step(dense().requires_grad_(False)) == "fused_mlp"
    normed = dense()
    nn.utils.parametrizations.spectral_norm(normed[0])
    assert step(normed, gp=1.0) == "fused_mlp"  # autograd would move its vectors twice
    D = dense()

    def loss(weights):
        return torch.func.functional_call(Step(D), weights, (torch.ones(2, 6), torch.ones(2, 6)))

    with torch.no_grad():
        torch.func.grad(loss)({f"D.{name}": p.detach() for name, p in D.named_parameters()})


class Step(nn.Module):
    """The loss of a step with a penalty, which autograd cannot compute inside torch.func."""

    def __init__(self, D):
        super().__init__()
        self.D = D

    def forward(self, real, fake):
        return discriminator_step(self.D, real, fake, r1=1.0).loss


def test_a_step_left_to_torch_refuses_what_the_fused_one_does(auto):
    auto(rule("discriminator_step none", train=True))
    D = dense()
    D[0].double()
    with pytest.raises(RuntimeError, match=r"^D: weight of dense layer 0 is torch.float64"):
        step(D)
    with pytest.raises(ValueError, match="expected 6 features a sample"):
        step(width=5)


# ---------------------------------------------------------------- what is told


def test_info_tells_the_rule_and_its_source(auto):
    torch.set_num_threads(2)
    auto(rule("lstm_cell", H=(10, 20), B=(3, 2**31 - 1), T=(1, 1), threads=(2, 2), isa=ISA, vendor=VENDOR))
    lines = _info.choice("lstm_cell,7,16,4,1,float32,infer")
    assert lines == [
        ("runs", "torch's own operators: measured faster"),
        ("rule", f"lstm_cell, float32, infer, H 10 to 20, B 3 and more, T 1, 2 thread(s) on {VENDOR} {ISA}, "
         "measured in made-up.csv (fusegen/_cpu_rules.py)"),
    ]  # fmt: skip
    assert dict(_info.choice("lstm_cell,7,21,4,1,float32,infer"))["runs"] == "fusegen"
    fusegen.set_backend("fused")
    assert dict(_info.choice("lstm_cell,7,16,4,1,float32,infer"))["runs"] == "fusegen"


def test_the_demo_tells(auto, capsys):
    from fusegen.data import Text
    from fusegen.train import FitOptions, TextOptions
    from fusegen.train.commands.demo import Demo

    text = Text("here", torch.tensor(list(b"a short story. " * 99), dtype=torch.uint8))
    options = TextOptions(cell="lstm", hidden=16, embedding=8, batch=4, chunk=16)
    for table, told in (((), False), ((rule("lstm", train=True, H=(16, 16), I=(8, 8)),), True)):
        auto(*table)
        Demo(text, options, FitOptions(steps=12, lr=0.02)).run()
        assert ("'auto' ran torch's own layers here: lstm, float32" in capsys.readouterr().out) == told


def test_auto_obeys_the_table_of_its_gpu(monkeypatch):
    class OnGpu:
        """What use_torch looks at of a tensor that lies on a GPU."""

        is_cpu, is_cuda, dtype, shape = False, True, torch.bfloat16, (512, 16, 128)
        device = torch.device("cuda", 0)

    monkeypatch.setattr(_backend, "FUSED_DEVICES", ("cpu", "meta", "cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Made Up H1")
    rule = _choice.Rule(
        "made-up-h1", "lstm", "bfloat16", False, H=(1, 64), B=(1, 64), T=(1, 1000), source="a test"
    )

    def goes_to_torch(H):
        R = torch.empty(4 * H, H)
        return _backend.use_torch("lstm", 4, OnGpu(), (), [None, R])

    fusegen.set_backend("auto")
    assert goes_to_torch(64) and goes_to_torch(128)  # no GPU was measured
    monkeypatch.setattr(_choice, "RULES", (rule,))
    monkeypatch.setattr(_choice, "MEASURED_GPUS", ("another",))
    assert goes_to_torch(128)
    monkeypatch.setattr(_choice, "MEASURED_GPUS", ("made-up-h1",))
    assert goes_to_torch(64) and not goes_to_torch(128)
    fusegen.set_backend("fused")
    assert not goes_to_torch(64)


def test_the_committed_table_has_the_form_that_is_read():
    for (isa, vendor), rows in _cpu_rules.MEASURED.items():
        assert isa in ("baseline", "avx2", "avx512", "avx512_bf16") and vendor in ("intel", "amd", "other")
        for cell, dtype, train, *ranges, source in rows:
            assert cell in _info.CELLS or cell in map(_choice.step_name, ("none", "r1", "gp"))
            assert dtype in _info.DTYPES and isinstance(train, bool) and source.endswith(".csv")
            assert len(ranges) == 5 and all(1 <= low <= high for low, high in ranges)
    assert len(_choice.CPU_RULES) == sum(map(len, _cpu_rules.MEASURED.values()))
    assert copy.deepcopy(_choice.CPU_RULES) == _choice.CPU_RULES
