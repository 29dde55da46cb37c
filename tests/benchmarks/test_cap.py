"""`--isa`: both sides held to one instruction set, and how a machine is named."""

import os
import subprocess
import sys

import fusegen
import pytest
import run as program
from benchmark_rows import FOLDER
from harness import cap, machine


@pytest.fixture
def uncapped(monkeypatch):
    for name in (*cap.VARIABLES, "FUSEGEN_ISA", cap.CACHE):
        monkeypatch.setenv(name, "")  # so that it is put back as it was
        monkeypatch.delenv(name)
    monkeypatch.setattr(cap, "applied", "")
    return cap


@pytest.mark.parametrize("argv", [["rnn", "--isa", "avx2"], ["--isa=avx2", "rnn", "--quick"]])
def test_a_cap_is_for_every_library(argv, uncapped):
    assert uncapped.apply(argv) == ""
    found = {name: os.environ[name] for name in (*uncapped.VARIABLES, "FUSEGEN_ISA")}
    assert found == {
        "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ATEN_CPU_CAPABILITY": "avx2",
        "FBGEMM_ENABLE_INSTRUCTIONS": "AVX2", "FUSEGEN_ISA": "avx2",
    }  # fmt: skip
    assert uncapped.applied == "avx2"


@pytest.mark.parametrize("given", ["", "/a/cache"])
def test_compiled_code_of_one_set_is_not_found_under_another(given, uncapped, monkeypatch):
    """torch.compile's key of a graph does not tell the set: half of a vector was left out."""
    folders = {given}
    for isa in uncapped.SETS:
        monkeypatch.delenv(uncapped.CACHE, raising=False)
        if given:
            monkeypatch.setenv(uncapped.CACHE, given)
        uncapped.apply(["rnn", "--isa", isa])
        folders.add(os.environ[uncapped.CACHE])
    assert len(folders) == 1 + len(uncapped.SETS)


def test_no_cap_changes_nothing_and_ours_alone_is_refused(uncapped, monkeypatch):
    before = dict(os.environ)
    assert uncapped.apply(["rnn"]) == uncapped.apply(["rnn", "--isa", "mmx"]) == ""
    assert os.environ == before and uncapped.applied == ""
    monkeypatch.setenv("FUSEGEN_ISA", "avx2")
    assert "would hold our side alone" in uncapped.apply(["rnn"])
    assert uncapped.apply(["rnn", "--isa", "avx2"]) == ""


def test_every_set_of_the_engine_has_its_cap():
    assert set(fusegen._C.build_info()["isas"]) <= set(cap.SETS) == set(cap.FLAGS)
    assert set(fusegen._C.available_isas()) <= set(list(cap.SETS)[: list(cap.SETS).index(cap.best()) + 1])


@pytest.mark.parametrize("vendor, mkl", [("GenuineIntel", True), ("AuthenticAMD", False)])
def test_who_cannot_be_capped_is_named(uncapped, monkeypatch, vendor, mkl):
    flags = "avx2 fma f16c avx512f avx512bw avx512vl avx512dq"
    monkeypatch.setattr(uncapped, "cpuinfo", lambda: f"vendor_id\t: {vendor}\nflags\t\t: {flags}\n")
    assert uncapped.best() == "avx512" and uncapped.unreached() == {}
    monkeypatch.setattr(uncapped, "applied", "avx512")
    assert uncapped.unreached() == {}
    monkeypatch.setattr(uncapped, "applied", "avx2")
    assert list(uncapped.unreached()) == ["ONNX Runtime", "tract"] + ["MKL (in torch)"] * (not mkl)
    assert "MLAS" in uncapped.remark("onnxruntime", False) and "not capped" in uncapped.remark("tract", False)
    assert ("MKL" in uncapped.remark("torch", False)) == (not mkl)
    for peer, ours in (("openvino", False), ("onednn", False), ("peak", False), ("auto", True)):
        assert uncapped.remark(peer, ours) == ""


def test_a_set_that_is_not_there_is_one_line_and_status_2():
    environment = {name: value for name, value in os.environ.items() if name != "FUSEGEN_ISA"}
    command = [sys.executable, str(FOLDER / "run.py"), "rnn", "--isa", "mmx"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    there = ", ".join(fusegen._C.available_isas())
    assert done.stderr == (
        f"run.py: --isa: expected one of {there} (which this machine and build have), got 'mmx'\n"
    )


def test_a_cap_comes_before_torch_or_not_at_all(uncapped, capsys):
    assert program.main(["rnn", "--isa", fusegen._C.available_isas()[0]]) == 2
    assert "before torch is imported" in capsys.readouterr().err


def test_torch_obeys_the_cap():
    """In a process of its own: ATen and oneDNN name the set that they run."""
    program = """
from harness import cap; cap.apply(["--isa", "baseline"])
import torch, fusegen
print(torch.backends.cpu.get_cpu_capability(), fusegen._C.isa(), flush=True)
torch.nn.LSTM(8, 8)(torch.randn(2, 16, 8))
"""
    environment = os.environ | {"ONEDNN_VERBOSE": "1"}
    environment.pop("FUSEGEN_ISA", None)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, cwd=FOLDER
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "DEFAULT baseline"
    assert "isa:Intel SSE4.1" in done.stdout


ZEN = "vendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: {}\n"


LAKE = "vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 85\nmodel name\t: {}\n"


@pytest.mark.parametrize(
    "cpuinfo, name",
    [
        (ZEN.format("AMD EPYC"), "AMD EPYC (family 25 model 17)"),
        (ZEN.format("AMD EPYC 7763 64-Core Processor"), "AMD EPYC 7763 64-Core"),
        (LAKE.format("Intel(R) Xeon(R) CPU @ 2.50GHz"), "Intel Xeon @ 2.50GHz (family 6 model 85)"),
        (LAKE.format("Intel(R) Xeon(R) Platinum 8370C CPU @ 2.80GHz"), "Intel Xeon Platinum 8370C @ 2.80GHz"),
        (
            ZEN.format("QEMU Virtual CPU version 2.5+"),
            "QEMU Virtual version 2.5+ (AMD family 25 model 17)",
        ),
        ("processor\t: 0\n", ""),
    ],
)
def test_a_machine_is_named_by_what_tells_its_kind(cpuinfo, name):
    assert machine.model_name(cpuinfo) == name
