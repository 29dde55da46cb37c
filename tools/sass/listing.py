"""What nvdisasm prints of a cubin (`-hex -c`), as instructions.

With the text come the 128 bits of each instruction, whose upper ones say how the compiler paces it: cycles to
the next one, and the scoreboards that it sets and waits for. (Jia et al., "Dissecting the NVIDIA Volta GPU
Architecture via Microbenchmarking", arXiv 1804.06826, section 2; the layout is the same up to sm_120.)
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

NONE = 7  # the scoreboard that is none


@dataclass(frozen=True)
class Pace:
    """Of an instruction, by its own bits."""

    stall: int = 1  # cycles before the warp's next one may be issued
    sets: int = NONE  # the scoreboard that is free again when its result is there
    reads: int = NONE  # that which is free again when its operands are read
    waits: int = 0  # a bit for each scoreboard that must be free


@dataclass(frozen=True)
class Instruction:
    address: int
    guard: str  # "P0", "!P0", "UP1"; "": always
    name: str  # with its modifiers
    operands: tuple[str, ...]
    target: str = ""  # the label that it names
    pace: Pace = Pace()

    @property
    def base(self) -> str:
        return self.name.partition(".")[0]

    @property
    def modifiers(self) -> list[str]:
        return self.name.split(".")[1:]

    def __str__(self) -> str:
        guard = f"@{self.guard} " if self.guard else ""
        return f"{guard}{self.name} {', '.join(self.operands)}".rstrip()


@dataclass
class Function:
    symbol: str
    code: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)  # -> address


SECTION = re.compile(r"\s*\.section\s+\.text\.(\S+?),")
LABEL = re.compile(r"^([.\w$]+):\s*$")
LINE = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(?:@(!?U?P[T0-9]+)\s+)?([A-Z][\w.]*)\s*([^;]*);")
BITS = re.compile(r"/\* 0x([0-9a-f]{16}) \*/")
REMARK = re.compile(r"\s*\(\*.*?\*\)")  # of the compiler: "SpillRefill"
NAMED = re.compile(r"`\((\S+?)\)")


def pace(upper: int) -> Pace:
    """Of the upper 64 bits of an instruction."""
    control = upper >> 41
    return Pace(control & 15, control >> 5 & 7, control >> 8 & 7, control >> 11 & 63)


def split_operands(text: str) -> tuple[str, ...]:
    """At commas outside brackets."""
    return tuple(part.strip() for part in re.split(r",(?![^\[({]*[\])}])", text) if part.strip())


def read(text: str) -> list[Function]:
    """The functions of a listing; without bits (`-c` alone, or by hand) an instruction takes one cycle."""
    functions: list[Function] = []
    waiting: list[str] = []  # labels of the next instruction
    pending: Instruction | None = None  # whose upper bits are on the next line
    for line in text.splitlines():
        if found := SECTION.match(line):
            functions.append(Function(found[1]))
            waiting = []
        elif not functions:
            continue
        elif found := LABEL.match(line):
            waiting.append(found[1])
        elif found := LINE.match(line):
            address = int(found[1], 16)
            functions[-1].labels.update((label, address) for label in waiting)
            waiting = []
            text = REMARK.sub("", found[4])
            named = NAMED.search(text)
            functions[-1].code.append(
                Instruction(
                    address, found[2] or "", found[3], split_operands(text), named[1] if named else ""
                )
            )
            pending = functions[-1].code[-1]
        elif pending and (found := BITS.search(line)):
            i = pending
            functions[-1].code[-1] = Instruction(
                i.address, i.guard, i.name, i.operands, i.target, pace(int(found[1], 16))
            )
            pending = None
    return functions


@functools.cache
def tool(name: str) -> str | None:
    """Where nvdisasm or cuobjdump is: of the wheels beside this interpreter, or on the PATH."""
    wheel = Path(sysconfig.get_path("purelib")) / "nvidia"
    for path in sorted(wheel.glob(f"cu*/bin/{name}")):
        if not os.access(path, os.X_OK):  # some installers drop the bit
            path.chmod(0o755)
        return str(path)
    return shutil.which(name)


def disassemble(cubin: Path) -> list[Function]:
    program = tool("nvdisasm")
    if program is None:
        raise FileNotFoundError("nvdisasm: pip install -c constraints.txt nvidia-cuda-nvdisasm")
    run = subprocess.run([program, "-hex", "-c", str(cubin)], capture_output=True, text=True)
    if run.returncode:
        raise ValueError(f"nvdisasm cannot read {cubin}: {run.stderr.strip()}")
    return read(run.stdout)


def extract(built: Path, source: Path, architecture: str, cubin: Path) -> None:
    """From the object that a CMake build made of a source, the machine code of an architecture."""
    program = tool("cuobjdump")
    if program is None:
        raise FileNotFoundError("cuobjdump: pip install -c constraints.txt nvidia-cuda-cuobjdump")
    objects = [*built.glob(f"CMakeFiles/*.dir/**/{'/'.join(source.parts[-3:])}.o")]
    if len(objects) != 1:
        raise FileNotFoundError(f"{len(objects)} objects of {source} in {built}")
    with tempfile.TemporaryDirectory() as folder:
        command = [program, "-xelf", architecture, str(objects[0].resolve())]
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        written = [*Path(folder).glob("*.cubin")]
        if run.returncode or len(written) != 1:
            raise ValueError(f"{objects[0]}: {len(written)} of {architecture} in it {run.stderr.strip()}")
        shutil.move(written[0], cubin)
