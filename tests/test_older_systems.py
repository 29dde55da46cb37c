"""The module loads on the systems and beside the torch that a wheel is for, whatever built it."""

import platform
import re
import shutil
import subprocess
from pathlib import Path

import fusegen
import pytest
import torch
from fusegen import _backend

# manylinux_2_28: glibc 2.28, and libstdc++ and libgcc of GCC 8.
NEWEST = {"GLIBC": (2, 28), "GLIBCXX": (3, 4, 25), "CXXABI": (1, 3, 11), "GCC": (7, 0, 0)}

linux = pytest.mark.skipif(platform.system() != "Linux", reason="symbols have versions on Linux")


@linux
@pytest.mark.skipif(shutil.which("objdump") is None, reason="needs objdump (binutils)")
def test_no_symbol_is_too_new():
    table = subprocess.run(
        ["objdump", "-T", fusegen._C.__file__], capture_output=True, text=True, check=True
    ).stdout
    asked = re.findall(r"\*UND\*.*?\(?\b(GLIBC|GLIBCXX|CXXABI|GCC)_([\d.]+)\)? +(\S+)$", table, re.M)
    assert {kind for kind, _, _ in asked} == set(NEWEST)
    too_new = [
        f"{name}@{kind}_{version}"
        for kind, version, name in asked
        if tuple(map(int, version.split("."))) > NEWEST[kind]
    ]
    assert not too_new


def resident() -> int:
    """Bytes of memory that this process has."""
    return 4096 * int(Path("/proc/self/statm").read_text().split()[1])


@linux
def test_errors_are_let_go():
    """std::exception_ptr counts as it should: of 1,000 errors of 100 kB none stays, and each is the right
    one."""
    name = "x" * 100_000

    def fail():
        with pytest.raises(ValueError, match=r"cell: expected 'lstm'.*, got 'x{100}"):
            fusegen._C.packed_bytes(name, 4, 4, 0, "float32")

    fail()
    before = resident()
    for _ in range(1000):
        fail()
    assert resident() - before < 20e6


@pytest.mark.parametrize("of", [(), (False,), (True,), (False, True), (False, False)])
def test_what_torch_2_6_lacks(of):
    """Written out, it says the same as torch's own."""
    tensors = [torch.zeros(1, requires_grad=r) for r in of]
    assert _backend._any(*tensors) == _backend.any_requires_grad(*tensors) == any(of)
