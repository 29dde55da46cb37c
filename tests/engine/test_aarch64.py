"""The engine on 64-bit ARM: right results in an emulator, inner loops without spills. Nothing is timed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cases import SHAPES

ROOT = Path(__file__).resolve().parents[2]
MISSING = 77  # what the script returns that misses a tool, having said which


@pytest.mark.slow
def test_the_engine_agrees_with_its_reference_and_spills_nothing():
    shapes = [" ".join(map(str, shape)) for shape in (*SHAPES, (7, 9, 0, 3))]
    # cmake and ninja lie beside this interpreter
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "tools/aarch64.sh", *shapes],
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    if done.returncode == MISSING:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0 and done.stdout.endswith(" passed, 0 failed\n"), done.stdout + done.stderr
    spills = subprocess.run(
        [sys.executable, "tools/check_spills.py", "build/aarch64/engine_test"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert spills.returncode == 0, spills.stdout + spills.stderr
