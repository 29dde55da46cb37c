"""What the GPU's parts do by themselves (benchmarks/gpu/micro.py)."""

import subprocess

import pytest
import torch
from gpu import micro


def test_micro_without_a_gpu_or_nvcc(monkeypatch, capsys):
    if torch.cuda.is_available():
        pytest.skip("this machine has an NVIDIA GPU")
    assert micro.main([]) == 2
    assert "sees no NVIDIA GPU" in capsys.readouterr().err
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(micro, "find_nvcc", lambda: None)
    assert micro.main([]) == 2
    assert "no nvcc" in capsys.readouterr().err


def test_micro_lists_wgmma_operands_and_reads_lines():
    header = micro.wgmma_header()
    assert header.count("template <> struct Wgmma<") == len(micro.WIDTHS)
    assert "m64n256k16" in header and '"+f"(d[127])' in header and "%132, 1, 1, 1, 0" in header
    assert micro.read("mma,N 8,12.5,TFLOP/s\n") == [("mma", "N 8", 12.5, "TFLOP/s")]


def test_micro_compiles_for_hopper(tmp_path):
    nvcc = micro.find_nvcc()
    if nvcc is None:
        pytest.skip("nvcc is not on this machine")
    (tmp_path / "wgmma.h").write_text(micro.wgmma_header())
    command = [*micro.compile_command(nvcc, "90a", tmp_path), "-cubin", "-o", str(tmp_path / "micro.cubin")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr and (tmp_path / "micro.cubin").stat().st_size > 0
