"""Results of made-up machines, under a root of their own."""

import pytest
from harness import machine, record


@pytest.fixture
def cpu_results(tmp_path, monkeypatch):
    """A function that writes rows as a file of a made-up CPU's results, under a root of its own."""
    shared = record.environment()
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    monkeypatch.setattr(record, "RESULTS", tmp_path / "results")

    def write(rows, suffix="", **columns):
        given = shared | {"commit": "0123456789", "threads": "2", "isa": "avx2", "capped": ""} | columns
        monkeypatch.setattr(record, "environment", lambda device="cpu": given)
        return record.write(rows, tmp_path / "results", suffix)

    return write


@pytest.fixture
def gpu_results(tmp_path, monkeypatch):
    """A function that writes rows as a file of a made-up GPU's results, under a root of its own."""
    shared = record.environment() | {
        "machine": "Made Up H1", "capability": "9.0", "driver": "1", "cuda": "13", "cudnn": "9", "host": "x",
    }  # fmt: skip
    monkeypatch.setattr(record, "environment", lambda device="cpu": shared | {"commit": "0123456789"})
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    monkeypatch.setattr(record, "RESULTS", tmp_path / "results")
    return lambda rows, suffix="": record.write(rows, tmp_path / "results", suffix, "cuda")
