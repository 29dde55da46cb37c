"""Check that code outside an instruction set's namespace needs no more than the baseline: check_isa.py FILE.

The kernels are compiled once per instruction set into one module. An inline function that a kernel and the
rest both use must not be linked in the kernel's version, or the module would die on an older CPU. FILE is the
module before stripping. x86-64 only: elsewhere there is one instruction set.
"""

import platform
import re
import subprocess
import sys

# Clones (constant propagation and the like) are local to the file that made them.
# Also as mangled: binutils leaves some names of nested generic lambdas as they are.
SETS = re.compile(r"fusegen::avx|7fusegen\d+avx|\[clone ")
# VEX- and EVEX-encoded instructions all start with v.
AVX = re.compile(r"\tv[a-z0-9]+")


def offenders(path: str) -> dict[str, str]:
    """The functions of `path` that use AVX without saying so in their name -> the first such instruction."""
    disassembly = subprocess.run(
        ["objdump", "--disassemble", "--demangle", "--no-show-raw-insn", "--section=.text", path],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found: dict[str, str] = {}
    name = ""
    for line in disassembly.splitlines():
        if line.endswith(">:"):
            name = line[line.index("<") + 1 : -2]
        elif AVX.search(line) and not SETS.search(name):
            found.setdefault(name, line.split("\t", 1)[1].strip())
    return found


def main() -> int:
    if platform.machine() not in ("x86_64", "AMD64"):
        print(f"{platform.machine()}: one instruction set, nothing to check")
        return 0
    found = offenders(sys.argv[1])
    for name, instruction in found.items():
        print(f"{name}: {instruction}")
    print(f"{len(found)} functions outside the instruction sets' namespaces use AVX")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
