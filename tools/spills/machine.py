"""What an architecture has to tell of its instructions."""

import abc
from collections import Counter
from dataclasses import dataclass


@dataclass
class Instruction:
    address: int
    name: str
    operands: list[str]
    symbol: str  # what a jump or call names as its target


class Machine(abc.ABC):
    number: int  # e_machine of its ELF files
    names: tuple[str, ...]  # as platform.machine() has it
    objdump: str  # of a cross compiler's binutils
    stack: frozenset[str]  # the registers that always point into the stack

    @abc.abstractmethod
    def parse(self, line: str) -> Instruction | None:
        """A line of objdump's; None for what does nothing: padding."""

    @abc.abstractmethod
    def target(self, i: Instruction) -> int | None:
        """Where a direct jump goes."""

    @abc.abstractmethod
    def jumps(self, i: Instruction) -> bool:
        """Whether a block ends here: a jump of any kind, or a return."""

    @abc.abstractmethod
    def jumps_anywhere(self, i: Instruction) -> bool:
        """Whether it jumps through a table."""

    @abc.abstractmethod
    def goes_on(self, i: Instruction) -> bool:
        """Whether the next instruction may come after it."""

    @abc.abstractmethod
    def calls(self, i: Instruction) -> bool: ...

    @abc.abstractmethod
    def arithmetic(self, i: Instruction) -> str:
        """ "fused" for multiply-adds of vectors, "products" or "sums" for their halves, else ""."""

    @abc.abstractmethod
    def accesses(self, i: Instruction, pointers: frozenset[str]) -> Counter:
        """The stores to the stack and reloads from it, `pointers` being the registers that point into it."""

    @abc.abstractmethod
    def pointers_after(self, i: Instruction, pointers: frozenset[str]) -> frozenset[str]:
        """The registers that may point into the stack after an instruction, of those that do before."""
