"""A recurrence of a certain shape: what its kernel is launched with, and what each warp then executes."""

from __future__ import annotations

import dataclasses
import functools
import struct
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .count import Step
from .floats import OF_FLOATS
from .flow import is_wait
from .integers import OF_INTEGERS
from .listing import Function, disassemble
from .memory import OF_MEMORY
from .warp import SHARED_WINDOW, Block, Event

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ROOT / "csrc/kernels/cuda"
PARAMETERS_AT = {"sm_90a": 0x210, "sm_80": 0x160, "sm_100": 0x380, "sm_120": 0x380}  # in constant bank 0
TYPES = {
    "bf16": ("Bf16", "FormatBf16"),
    "f16": ("F16", "FormatF16"),
    "tf32": ("", "FormatTf32"),
    "f32": ("", "FormatF32"),
}
# Names of the uniform path are those of a lane's with a U before them; some names are its own.
UNIFORM = (
    "MOV",
    "IADD3",
    "IMAD",
    "LEA",
    "SHF",
    "LOP3",
    "PLOP3",
    "ISETP",
    "SEL",
    "PRMT",
    "SGXT",
    "BMSK",
    "POPC",
    "FLO",
    "BREV",
    "VIADD",
    "IABS",
    "VIMNMX",
    "VIMNMX3",
)
DOES = {
    **OF_INTEGERS,
    **OF_FLOATS,
    **OF_MEMORY,
    **{f"U{name}": OF_INTEGERS[name] for name in UNIFORM},
    "ULDC": OF_MEMORY["LDC"],
    "S2UR": OF_INTEGERS["S2R"],
    "VOTEU": OF_INTEGERS["VOTE"],
    "UP2UR": OF_INTEGERS["P2R"],
}


@dataclass(frozen=True)
class Case:
    pass_: str  # forward, backward
    cell: str  # lstm, gru, rnn
    format: str  # bf16, f16, tf32, f32
    H: int
    B: int
    transport: str = "best"
    T: int = 4


@dataclass(frozen=True)
class Launch:
    symbol: str
    blocks: int
    cluster: int
    shared_bytes: int
    arguments: bytes


@dataclass(frozen=True)
class Launched:
    plan: dict[str, str]
    launches: list[Launch]


@dataclass(frozen=True)
class Kernel:
    function: Function
    constants: int  # bytes of its constant bank 0: what the driver puts there, and its arguments


MachineCode = dict[str, Kernel]  # by symbol


def machine_code(cubins: Iterable[Path]) -> MachineCode:
    return {
        function.symbol: Kernel(function, sizes[function.symbol])
        for cubin in cubins
        if (sizes := constant_bytes(cubin))
        for function in disassemble(cubin)
        if function.symbol in sizes
    }


def instantiations() -> list[Path]:
    """The files that the kernels of recurrences are made in."""
    return sorted(p for p in (KERNELS / "recurrent").rglob("*.cu") if p.parent.name == "instantiations")


def words_of(source: Path) -> list[str]:
    return source.stem.split("_")


@functools.cache
def launcher(pass_: str, format: str, folder: Path) -> Path:
    """Compiles launches.cpp for a pass and a format."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / f"launches_{pass_}_{format}"
    number, of = TYPES[format]
    other = "forward" if pass_ == "backward" else "backward"
    sources = [s for s in instantiations() if format in words_of(s) and other not in words_of(s)]
    folders = ("tests/simt", "csrc/kernels/cuda", "csrc/kernels", "csrc")
    command = [
        "g++", "-std=c++20", "-O0", "-w", "-rdynamic", *(f"-I{ROOT}/{folder}" for folder in folders),
        f"-DFUSEGEN_NUMBER={'fusegen::device::' + number if number else 'float'}",
        f"-DFUSEGEN_FORMAT=fusegen::device::{of}", *(["-DFUSEGEN_BACKWARD"] if pass_ == "backward" else []),
        "-o", str(program), str(Path(__file__).with_name("launches.cpp")),
        *map(str, sorted((KERNELS / "recurrent").rglob("*.cpp"))), "-x", "c++", *map(str, sources),
        "-Wl,--unresolved-symbols=ignore-all",
    ]  # fmt: skip
    subprocess.run(command, check=True, cwd=ROOT)
    return program


def launched(case: Case, argument_bytes: int, folder: Path) -> Launched:
    program = launcher(case.pass_, case.format, folder)
    values = (case.pass_, case.cell, case.format, case.H, case.B, case.T, case.transport, argument_bytes)
    run = subprocess.run([program, *map(str, values)], capture_output=True, text=True, check=True)
    plan: dict[str, str] = {}
    launches = []
    for line in run.stdout.splitlines():
        what, *words = line.split()
        if what == "plan":
            plan = {"transport": words[0], **dict(zip(words[1::2], words[2::2], strict=True))}
        else:
            symbol, blocks, _, cluster, _, shared, code = words
            launches.append(Launch(symbol, int(blocks), int(cluster), int(shared), bytes.fromhex(code)))
    return Launched(plan, launches)


def constant_bytes(cubin: Path) -> dict[str, int]:
    """Of each kernel in a cubin, the size of its constant bank 0 (ELF, 64 bits)."""
    data = cubin.read_bytes()
    offset, size, count, names = struct.unpack_from("<Q", data, 0x28) + struct.unpack_from("<HHH", data, 0x3A)
    sections = [struct.unpack_from("<IIQQQQ", data, offset + n * size) for n in range(count)]
    at = sections[names][4]
    found = {}
    for name, _, _, _, _, length in sections:
        text = data[at + name : data.index(b"\0", at + name)].decode()
        if text.startswith(".nv.constant0."):
            found[text.removeprefix(".nv.constant0.")] = length
    return found


def block_of(function: Function, launch: Launch, architecture: str) -> Block:
    """Its first block."""
    constants = bytearray(PARAMETERS_AT[architecture]) + launch.arguments
    struct.pack_into("<III", constants, 0, 256, 1, 1)
    special = {"SR_SWINHI": SHARED_WINDOW, "SR_CgaSize": launch.cluster}  # the others are 0
    return Block(function, bytes(constants), special, DOES)


def traces(function: Function, launch: Launch, architecture: str) -> list[list[Event]]:
    block = block_of(function, launch, architecture)
    try:
        with np.errstate(all="ignore"):
            made = block.run()
    finally:
        if block.unknown:
            raise NotImplementedError(f"tools/sass does not know {', '.join(sorted(block.unknown))}")
    return made


def step_of(case: Case, code: MachineCode, folder: Path, architecture: str) -> tuple[Step, Launched]:
    """A case's step: of the kernel that goes through all steps, else, a launch being a step, of the last."""
    before = PARAMETERS_AT[architecture]
    made = launched(case, max(kernel.constants for kernel in code.values()) - before, folder)
    for launch in made.launches:
        if launch.symbol not in code:
            raise LookupError(f"{launch.symbol}, which {case} runs, was not compiled")
    whole = [x for x in made.launches if any(map(is_wait, code[x.symbol].function.code))]
    launch = (whole or made.launches)[-1]
    again = sum(x.symbol == launch.symbol for x in made.launches)
    kernel = code[launch.symbol]
    launch = dataclasses.replace(launch, arguments=launch.arguments[: kernel.constants - before])
    steps = case.T + 1 if again == 1 else 1
    try:
        return Step(kernel.function, traces(kernel.function, launch, architecture), steps), made
    except ValueError:
        if steps == 1 or case.T > 16:
            raise
        return step_of(dataclasses.replace(case, T=4 * case.T), code, folder, architecture)
