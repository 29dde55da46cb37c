"""python tools/check_ptxas.py LOG: holds what ptxas said of every kernel (-Xptxas -v) against the budget.

Prints one line per kernel and GPU generation that is over, then "N kernels, N over budget".
"""

import re
import sys
from pathlib import Path

# A lane of a block of 256 may have 255 registers. All shared memory is asked for at launch, none is static.
REGISTERS, SHARED = 255, 0
# Bytes of spills: none, but for GRU forward in true float32: three sums and split halves miss
# one register, on sm_120 six.
SPILLS = {("forward", "3", "FormatF32"): 24}

ENTRY = re.compile(r"Compiling entry function '([^']+)' for '(sm_\w+)'")
SPILL = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
STATIC = re.compile(r"(\d+) bytes smem")
KERNEL = re.compile(r"cuda\d+([a-z_]+)_kernelILi(\d)E(?:.*?(Format[A-Za-z]+?\d+)ELi(\d)E)?")


def main(path: str) -> int:
    kernels, over, entry = 0, 0, None
    spilled = 0
    for line in Path(path).read_text(errors="replace").splitlines():
        if found := ENTRY.search(line):
            entry = found
        elif (found := SPILL.search(line)) and entry:
            spilled = max(int(found[1]), int(found[2]))
        elif (found := USED.search(line)) and entry:
            name = KERNEL.search(entry[1])
            if name is None:
                raise SystemExit(f"check_ptxas: a kernel that is not known here: {entry[1]}")
            static = STATIC.search(line)
            shared = int(static[1]) if static else 0
            kernels += 1
            allowed = SPILLS.get((name[1], name[2], name[3]), 0)
            if int(found[1]) > REGISTERS or spilled > allowed or shared > SHARED:
                over += 1
                tiles = f", {name[3]}, {name[4]} tile(s)" if name[3] else ""
                print(
                    f"{name[1]}, {name[2]} gates{tiles}, {entry[2]}: "
                    f"{found[1]} registers, {spilled} bytes spilled, {shared} bytes of static shared memory"
                )
            entry, spilled = None, 0
    print(f"{kernels} kernels, {over} over budget")
    return 1 if over or not kernels else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
