"""`fusegen info`: what it reports is what is so, and what it cannot read it refuses."""

import itertools
import re
import subprocess
import sys

import fusegen
import numpy
import pytest
import torch
from fusegen import _C, _backend, _choice, _info, _precision
from fusegen.cli import main
from hypothesis import given
from hypothesis import strategies as st

SHAPE = "lstm,256,256,32,100,float32,train"


def report(shape=None):
    """The report as a dict of its lines."""
    lines = fusegen.info(shape).splitlines()
    return {line[:22].strip(): line[23:] for line in lines}


def test_report():
    seen = report()
    assert seen["fusegen"].startswith(fusegen.__version__)
    assert seen["torch"] == torch.__version__ and seen["numpy"] == numpy.__version__
    assert seen["instruction set"].split()[0] == _C.isa()
    assert all(isa in seen["instruction set"] for isa in _C.available_isas())
    assert seen["threads"].startswith(str(torch.get_num_threads()))
    assert seen["backend"] == "fused"  # conftest sets it
    assert {"processor", "CUDA kernels", "GPU", "fallbacks"} <= seen.keys()
    assert "shape" not in seen
    assert _C.build_info()["cuda_note"] in seen["CUDA kernels"]
    assert torch.cuda.is_available() or "found" in seen["GPU"] or "cannot" in seen["GPU"]


def test_one_openmp_runtime_is_loaded():
    """In a process of its own: scikit-learn, which other tests import, brings another."""
    code = "import fusegen, fusegen._info as i; print(*i.openmp_runtimes(), sep='\\n'); print(i.info())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second, *_ = done.stdout.splitlines()
    assert "omp" in first and second.startswith("fusegen")
    assert re.search(rf"^OpenMP runtime +{re.escape(first)}$", done.stdout, re.M)


def test_several_openmp_runtimes_are_pointed_out(monkeypatch):
    monkeypatch.setattr(_info, "openmp_runtimes", lambda: ["/a/libgomp.so.1", "/b/libiomp5.so"])
    assert report()["OpenMP runtime"].endswith("(2 at once: they compete for the cores)")


def test_openmp_runtimes_are_known_by_name():
    for path in ("/x/libgomp.so.1", "/x/libgomp-a34b3233.so.1", "/x/libiomp5.so", "/x/libomp.so"):
        assert _info._OPENMP.search(path), path
    for path in ("/x/libgompish.so", "/x/libomptarget.so", "/libgomp.d/libc.so.6", "/x/libcomp.so"):
        assert not _info._OPENMP.search(path), path


def test_fallbacks_are_counted(monkeypatch):
    monkeypatch.setattr(_backend, "fallbacks", {"lstm on cuda: no fused kernels": 3})
    assert report()["fallbacks"] == "lstm on cuda: no fused kernels (3 calls)"


@pytest.mark.parametrize("mode", ["train", "infer"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
@pytest.mark.parametrize("cell", _info.CELLS)
def test_the_kernel_is_the_one_that_the_engine_names(cell, dtype, mode):
    layer, steps = cell.removesuffix("_cell"), 20 if cell in _info.LAYERS else 1
    seen = report(f" {cell}, 64,128, 8,{steps},{dtype},{mode}")
    chosen = _C.choose(
        _info.engine_name(layer), 64, 128, 8, steps, dtype, mode == "train", torch.get_num_threads()
    )
    assert seen["runs"] == "fusegen" and seen["why"] == chosen["why"] != ""
    for name, value in chosen.items():
        assert seen[name.replace("_", " ")] == str(value)


@pytest.mark.parametrize(
    "steps, rows, threads, said",
    [
        (1, 8, 1, "as they lie"),
        (1, 9, 1, "block by block as they are used"),
        (5, 9, 1, "R packed, W block by block as it is used"),
        (500, 9, 1, "packed"),
    ],
)
def test_only_what_is_packed_is_called_so(steps, rows, threads, said):
    assert _C.choose("gru", 64, 128, rows, steps, "float32", False, threads)["weights"] == said


def test_the_choice_is_the_same_each_time_and_follows_the_threads():
    torch.set_num_threads(2)
    first = report(SHAPE)
    assert report(SHAPE) == first
    torch.set_num_threads(1)
    assert report(SHAPE)["why"] != first["why"]


def test_the_backend_decides_first(monkeypatch):
    fusegen.set_backend("torch")
    assert report(SHAPE)["runs"].startswith("torch's own operators: the backend is set so")
    fusegen.set_backend("auto")
    assert report(SHAPE)["runs"] == "fusegen"
    rule = _choice.Rule(
        "cpu", "lstm", "float32", True, H=(256, 256), B=(1, 64), T=(1, 1000), source="made up"
    )
    monkeypatch.setattr(_choice, "RULES", (rule,))
    assert "measured faster" in report(SHAPE)["runs"]
    assert "1 measured range" in report()["backend"]
    fusegen.set_backend("fused")
    assert report(SHAPE)["runs"] == "fusegen"


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ("", "7 parts, got 1"),
        ("lstm,1,2,3", "7 parts, got 4"),
        (SHAPE + ",more", "7 parts, got 8"),
        (
            "mlp,256,256,32,100,float32,train",
            "cell: expected one of lstm, gru, rnn, lstm_cell, gru_cell, rnn_cell, got 'mlp'",
        ),
        ("gru_cell,256,256,32,100,float32,train", "T: expected 1 of a cell, got 100"),
        ("lstm,x,256,32,100,float32,train", "I: expected an integer, got 'x'"),
        ("lstm,256,0,32,100,float32,train", "H: expected an integer from 1 to"),
        ("lstm,256,256,-1,100,float32,train", "B: expected an integer"),
        ("lstm,256,256,32,1e9,float32,train", "T: expected an integer"),
        ("lstm,256,256,32,99999999999999999999,float32,train", "T: expected an integer from 1"),
        ("lstm,256,256,32,100,int8,train", "dtype: expected one of"),
        ("lstm,256,256,32,100,float32,test", "train|infer: expected one of train, infer, got 'test'"),
    ],
)
def test_a_wrong_shape_is_refused_by_part(shape, words, capsys):
    with pytest.raises(ValueError, match=f"^shape: .*{re.escape(words)}"):
        fusegen.info(shape)
    assert main(["info", "--shape", shape]) == 2
    out, err = capsys.readouterr()
    assert (
        out == ""
        and words in err
        and err.count("\n") == 1
        and err.startswith("fusegen info: error: --shape: ")
    )


@pytest.mark.parametrize("device", _info.GPUS)
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_the_gpu_plan_is_the_one_that_the_engine_makes(cell, device):
    _, sms, shared_kib = _info.GPUS[device]
    for dtype, mode in itertools.product(("bfloat16", "float16"), ("train", "infer")):
        lines = fusegen.info(f"{cell},64,512,64,100,{dtype},{mode}", device).splitlines()
        names = [line[:22].strip() for line in lines]
        assert ("backward" in names) == (mode == "train")
        for backward, name in enumerate(("forward", "backward")[: 1 + (mode == "train")]):
            p = _C.gpu_plan_on(
                sms,
                shared_kib * 1024,
                int(device[3:-1]),
                _info.code_for(int(device[3:]))[1],
                _info.engine_name(cell),
                dtype,
                False,
                bool(backward),
                64,
                512,
                512,
                1,
                "best",
            )
            at = names.index(name)
            assert lines[at][23:] == f"{p.transport}: {p.why}"
            assert str(p.shared_bytes) in lines[at + 3] and p.shared_bytes <= shared_kib * 1024


def test_what_differs_between_gpus_shows(monkeypatch):
    shape = "lstm,64,512,8,100,bfloat16,infer"
    assert "\nforward                cluster: " in fusegen.info(shape, "sm_90")
    assert "\nforward                l2: " in fusegen.info(shape, "sm_80")
    assert "no fused kernels" in fusegen.info("lstm,64,512,8,100,float64,infer", "sm_90")
    fusegen.set_backend("auto")
    assert "no GPU was measured yet" in fusegen.info(shape, "sm_90")
    monkeypatch.setattr(_choice, "MEASURED_GPUS", ("made-up-h1",))
    assert "as measured on made-up-h1" in fusegen.info(shape, "sm_90")


def test_tf32_is_told(monkeypatch):
    for allowed in (True, False):
        monkeypatch.setattr(_precision, "recurrence_in_tf32", lambda dtype, allowed=allowed: allowed)
        seen = fusegen.info("gru,64,512,8,100,float32,infer", "sm_80")
        assert f"allow_tf32 is {allowed}" in seen


@pytest.mark.parametrize(
    ("shape", "device", "words"),
    [
        (SHAPE, "sm_70", "device: expected one of cpu, cuda"),
        (None, "sm_90", "device: expected a shape beside it"),
        ("lstm_cell,8,8,8,1,float32,infer", "sm_90", "shape: cell: expected one of lstm, gru, rnn on a GPU"),
        (
            "lstm,8,2000000,32,100,float32,train",
            "sm_90",
            "shape: recurrence: expected B <= 2^24 and H <= 2^20",
        ),
    ],
)
def test_a_wrong_device_is_refused(shape, device, words, capsys):
    with pytest.raises(ValueError, match=f"^{re.escape(words)}"):
        fusegen.info(shape, device)
    argv = ["info", "--device", device] + (["--shape", shape] if shape else [])
    assert main(argv) == 2
    assert capsys.readouterr().err.startswith(f"fusegen info: error: --{words}")


@given(st.text(max_size=40) | st.lists(st.text(max_size=6), min_size=7, max_size=7).map(",".join))
def test_no_text_breaks_it(shape):
    try:
        fusegen.info(shape)
    except ValueError as error:
        assert str(error).startswith("shape: ")


def test_command(capsys):
    assert main(["info", "--shape", SHAPE]) == 0
    assert capsys.readouterr().out == fusegen.info(SHAPE) + "\n"
