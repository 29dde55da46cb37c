"""What is compared: every contestant computes what torch.nn does in float64, and a wrong one is seen."""

import contextlib

import fusegen
import pytest
import torch
from benchmark_rows import problem, run
from fusegen import _precision
from fusegen.ops.cuda.engine import Engine
from harness import sweep
from harness.check import Mismatch, verify
from harness.peer import NotCompared, Unavailable
from harness.problem import CELLS, Case, Problem
from harness.timing import Timing
from peers.graph import InGraph
from peers.onednn_direct import Onednn, join_bias, permute, split_bias
from peers.openvino import Openvino, compiled
from peers.ort import OnnxRuntime, OnnxRuntimeQuantized
from peers.ours import Ours, OursPacked, OursQuantized
from peers.recurrence import Recurrence
from peers.torch_eager import TorchEager
from peers.torch_quantized import TorchQuantized
from peers.tract import Tract
from speed.gan import PEERS, GanCase, GanProblem, cases
from speed.text import TextProblem, TextStep


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    "peer, train", [("ort", False), ("openvino", False), ("onednn", False), ("onednn", True)]
)
def test_peers_compute_what_torch_does(cell, peer, train):
    """Gate orders, joined biases and gradients: every weight differs, so any permutation shows."""
    of = problem(cell, train=train)
    try:
        found = run({"ort": OnnxRuntime, "openvino": Openvino, "onednn": Onednn}[peer](), of)
    except Unavailable as reason:
        pytest.skip(f"{peer}: {reason}")
    assert ("dweight_hh" in found) == train
    verify(of, found)


@pytest.mark.parametrize("cell", CELLS)
def test_tract_takes_a_step_of_one_row(cell):
    of = Problem(Case(cell, H=8, B=1, T=1, I=6))
    try:
        runner = Tract().prepare(of)
    except Unavailable as reason:
        pytest.skip(f"tract: {reason}")
    for _ in range(2):  # from a state of zeros each time
        runner.run()
        verify(of, runner.results())
    with pytest.raises(Unavailable, match="of several rows"):
        Tract().prepare(problem(cell))


INT8 = {
    "fused": OursQuantized("fused"),
    "fused weight_only": OursQuantized("fused weight_only", weight_only=True),
    "torch.ao": TorchQuantized(),
    "onnxruntime": OnnxRuntimeQuantized(),
}


@pytest.mark.parametrize("peer", INT8)
@pytest.mark.parametrize("cell", CELLS)
def test_quantized_peers_compute_what_torch_does(cell, peer):
    of = Problem(Case(cell, H=64, B=1, T=20, I=48))
    try:
        runner = INT8[peer].prepare(of)
    except Unavailable as reason:
        pytest.skip(f"{peer}: {reason}")
    except NotCompared:
        assert (peer, cell) == ("torch.ao", "rnn")
        return
    runner.reset()
    runner.run()
    error = verify(of, runner.results(), runner.compared)
    runner.close()
    float32 = peer == "onnxruntime" and cell != "lstm"
    assert (error > 1e-5) == (not float32)  # what is not quantized says so
    assert ("its float32 one ran" in runner.remark) == float32
    assert ("quantized engine" in runner.remark) == (peer == "torch.ao")


def test_weights_alone_are_for_one_row():
    with pytest.raises(NotCompared):
        INT8["fused weight_only"].prepare(problem("gru"))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_tolerance_of_8_bits_sees_gates_in_a_wrong_order(cell):
    of = Problem(Case(cell, H=64, B=1, T=20, I=48))
    of.weights = [w.roll(64, 0) for w in of.weights]  # the reference keeps its own
    runner = INT8["fused"].prepare(of)
    runner.run()
    with pytest.raises(Mismatch):
        verify(of, runner.results(), runner.compared)
    runner.close()


@pytest.mark.parametrize("form", ["layer", "ragged", "cell"])
@pytest.mark.parametrize("cell", CELLS)
def test_ours_and_torch_agree_in_every_form(cell, form):
    of = problem(cell, form=form, train=True)
    for peer in [TorchEager(), Ours("fused")] + [OursPacked("fused packed")] * (form == "ragged"):
        found = run(peer, of)
        assert set(found) == set(of.reference())
        verify(of, found)


def test_verify_sees_a_wrong_tensor():
    of = problem("gru")
    right = of.reference()
    with pytest.raises(Mismatch, match="h_n"):
        verify(of, {"y": right["y"], "h_n": right["h_n"] + 1e-3})
    with pytest.raises(Mismatch, match="h_n"):
        verify(of, {"h_n": right["h_n"] * torch.nan})
    with pytest.raises(Mismatch, match="not in the reference"):
        verify(of, {"y": right["y"][1:]})


def test_permutations_are_their_own_inverse_and_biases_split_as_joined():
    for cell, gates in (("lstm", 4), ("gru", 3), ("rnn", 1)):
        weight = torch.randn(gates * 2, 3)
        assert torch.equal(permute(cell, permute(cell, weight)), weight)
    b_ih, b_hh = torch.arange(6.0), torch.arange(6.0) * 10  # r r z z n n
    assert join_bias("gru", b_ih, b_hh).tolist() == [22, 33, 0, 11, 4, 5, 40, 50]
    d_ih, d_hh = split_bias("gru", torch.arange(8.0))  # z z r r n n n' n'
    assert d_ih.tolist() == [2, 3, 0, 1, 4, 5]
    assert d_hh.tolist() == [2, 3, 0, 1, 6, 7]


def test_onnx_runtime_does_not_spin_and_openvino_is_given_time_to_stop():
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("openvino", reason="openvino is not installed")
    pytest.importorskip("onnx", reason="onnx is not installed")

    of = problem("lstm")
    options = OnnxRuntime().prepare(of).session.get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert Openvino().prepare(of).rest > 0
    model = compiled(of)
    assert model.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
    assert model.get_property("INFERENCE_NUM_THREADS") == torch.get_num_threads()
    assert model.get_property("NUM_STREAMS") == 1


def test_gan_under_auto_is_a_contestant_of_its_own():
    (auto,) = [peer for peer in PEERS if peer.name == "auto"]
    of = GanProblem(GanCase("mlp-9-7-1", 3, "r1"))
    runner = auto.prepare(of)
    before = fusegen.get_backend()
    runner.run()
    assert fusegen.get_backend() == "auto" and runner.path
    assert verify(of, runner.results()) < 1e-5
    runner.close()
    assert fusegen.get_backend() == before


@pytest.mark.parametrize("penalty", ["none", "r1", "gp"])
def test_gan_peers_compute_one_step(penalty):
    of = GanProblem(GanCase("mlp-9-7-1", 3, penalty))
    found = [run(peer, of) for peer in PEERS if peer.name in ("fused", "eager", "concatenated")]
    for one in found:
        assert set(one) == {"loss", *(name for name, _ in of.net.named_parameters())}
        assert verify(of, one) < 1e-5


def test_gan_peers_are_compiled_at_every_dense_size():
    compiled = [peer for peer in PEERS if peer.name in ("compile", "func")]
    for case in cases(quick=False):
        assert any(peer.fits(case) for peer in compiled) == case.cell.startswith("mlp"), case.name


@pytest.mark.parametrize("cell", CELLS)
def test_text_peers_compute_one_step(cell):
    of = TextProblem(Case(cell, H=16, B=4, T=8, I=8, train=True, form="text"))
    for peer in (TextStep("fused", "fused"), TextStep("torch", "torch.nn")):
        assert verify(of, run(peer, of)) < 1e-5


@pytest.mark.parametrize("train", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_recurrence_alone_computes_what_the_layer_does(cell, train, monkeypatch):
    simt = pytest.importorskip("_simt", reason="_simt is not built: `make test` builds it")

    monkeypatch.setattr(_precision, "recurrence_in_tf32", lambda dtype: False)
    of = problem(cell, train=train)
    found = run(Recurrence(Engine(simt)), of)
    assert set(found) == {"y", "h_n", "c_n"} - ({"c_n"} if cell == "gru" else set())
    verify(of, found)


@pytest.mark.parametrize("suite", ["rnn", "gan"])
def test_a_step_can_be_captured_and_its_row_made(suite, monkeypatch):
    """What the GPU's path asks of problems and runners, with a capture that only runs."""

    class Stream:
        def wait_stream(self, other):
            pass

    class Graph:
        replay = reset = lambda self: None

    fake = {
        "CUDAGraph": Graph,
        "Stream": Stream,
        "current_stream": Stream,
        "stream": lambda s: contextlib.nullcontext(),
        "graph": lambda graph, stream: contextlib.nullcontext(),
    }
    for name, value in fake.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(sweep, "device_of", lambda case: "cuda")
    if suite == "gan":
        of = GanProblem(GanCase("mlp-9-7-1", 3, "r1"))
        peer = next(one for one in PEERS if one.name == "eager")
    else:
        of, peer = problem("lstm", train=True), TorchEager()
    found = run(InGraph("graph", peer), of)
    assert set(found) == set(of.reference())
    made = sweep.timing_row(suite, of, "graph", {"graph": Timing([1e-3])}, 0.0)
    assert made.value == 1 and (made.gbs == "") == (suite == "gan")
