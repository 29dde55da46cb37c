"""Listings as nvdisasm prints them, made by hand."""

import pytest
from sass import listing
from sass.flow import Graph


def pace_bits(stall=1, sets=7, reads=7, waits=0):
    return (stall | sets << 5 | reads << 8 | waits << 11) << 41


def text_of(lines, name="kernel"):
    """A line an instruction, with how the compiler paces it behind '#': 'IADD3 R1, R2, R3 # stall=4 sets=0'.
    'name:' is a label, '-> name' stands for its operand.
    """
    out = [f'\t.section\t.text.{name},"ax",@progbits', f".text.{name}:"]
    address = 0
    for line in filter(None, map(str.strip, lines.strip().splitlines())):
        if line.endswith(":"):
            out.append(f".L_{line}")
            continue
        code, _, pace = line.partition("#")
        given = {key: int(value) for key, value in (word.split("=") for word in pace.split())}
        code = " ".join(code.split()).replace("-> ", "`(.L_") + (")" if "-> " in code else "")
        out.append(f"        /*{address:04x}*/                   {code} ;   /* 0x{0:016x} */")
        out.append(f"                                             /* 0x{pace_bits(**given):016x} */")
        address += 16
    return "\n".join(out)


@pytest.fixture
def function():
    """A function: the one that such lines make."""
    return lambda lines: listing.read(text_of(lines))[0]


@pytest.fixture
def graph(function):
    return lambda lines: Graph(function(lines))
