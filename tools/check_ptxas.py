"""python tools/check_ptxas.py LOG: holds what ptxas said of every kernel (-Xptxas -v) against the budget.

Prints one line per kernel and GPU generation that is over, then "N kernels, N over budget".
"""

import re
import sys
from pathlib import Path

# A lane of a block of 256 may have 255 registers, and spills none. All shared memory is asked for at launch,
# none is static.
REGISTERS, SHARED = 255, 0

ENTRY = re.compile(r"Compiling entry function '([^']+)' for '(sm_\w+)'")
SPILL = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
STATIC = re.compile(r"(\d+) bytes smem")
# Of a sequence or a step of one, with its cell and what its template is given; of a cell's step, its gates.
SEQUENCE = re.compile(
    r"cuda\d+(?:(?:stepwise|wide)\d+)?((?:step_|wide_)?(?:forward|backward)[a-z_]*?)(?:_kernel)?I"
    r".*?\d(Lstm|Gru|Rnn)(?:Gradient)?E.*?(Format[A-Za-z]+?\d+)E(.*?)EE?v"
)
CELL = re.compile(
    r"cuda\d+(cell|cell_step|cell_backward)_kernelILi(\d)E(?:.*?(Format[A-Za-z]+?\d+)ELi(\d)E)?"
)
# Of normalised cells: a step's product and, for each cell, its rows.
NORMALISED = re.compile(
    r"cuda\d+normalised\d+(block_product|rows_forward|rows_backward|start_rows|total_rows)_kernelI"
    r"(?:.*?\d(Lstm|Gru|Rnn)E)?(?:.*?(Format[A-Za-z]+?\d+)E)?"
)
# Ahead of a recurrence.
ALONE = re.compile(r"\d(boundary|mask|start_masked)_kernel")
# Of the discriminator step, with its format, the rows of its tile, and whether it is of plain chains.
STEP = re.compile(r"\dstep_kernelI.*?(Format[A-Za-z]+?\d+).*?TileSizeILi(\d+)E.*?Lb[01]EEELb([01])EEEv")


def of_kernel(symbol: str) -> tuple[str, int]:
    """What to call this kernel, and the registers that it may have."""
    if found := SEQUENCE.search(symbol):
        numbers = re.findall(r"L[a-z](\d+)E", found[4] + "E")
        return ", ".join((found[1].replace("_", " "), found[2], found[3], *numbers)), REGISTERS
    if found := CELL.search(symbol):
        tiles = f", {found[3]}, {found[4]} tile(s)" if found[3] else ""
        return f"{found[1]}, {found[2]} gates{tiles}", REGISTERS
    if found := NORMALISED.search(symbol):
        return ", ".join(part.replace("_", " ") for part in found.groups() if part), REGISTERS
    if found := ALONE.search(symbol):
        return found[1], REGISTERS
    if found := STEP.search(symbol):
        options = "" if found[3] == "1" else " with options"
        return f"discriminator step{options}, {found[1]}, tiles of {found[2]}", REGISTERS
    raise SystemExit(f"check_ptxas: a kernel that is not known here: {symbol}")


def main(path: str) -> int:
    kernels, over, entry = 0, 0, None
    spilled = 0
    for line in Path(path).read_text(errors="replace").splitlines():
        if found := ENTRY.search(line):
            entry = found
        elif (found := SPILL.search(line)) and entry:
            spilled = max(int(found[1]), int(found[2]))
        elif (found := USED.search(line)) and entry:
            name, registers = of_kernel(entry[1])
            static = STATIC.search(line)
            shared = int(static[1]) if static else 0
            kernels += 1
            if int(found[1]) > registers or spilled or shared > SHARED:
                over += 1
                print(
                    f"{name}, {entry[2]}: "
                    f"{found[1]} registers, {spilled} bytes spilled, {shared} bytes of static shared memory"
                )
            entry, spilled = None, 0
    print(f"{kernels} kernels, {over} over budget")
    return 1 if over or not kernels else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
