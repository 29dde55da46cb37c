"""The runners of modules with torch.nn's interface: layers and cells, ours, torch's own and the float64
reference.
"""

from __future__ import annotations

import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from harness.peer import BaseRunner

PARAMETERS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class ModuleRunner(BaseRunner):
    """What layers and cells have in common; `forward` returns the tensors that get `gradients`."""

    def __init__(self, module: torch.nn.Module, problem):
        self.module, self.problem, self.train = module, problem, problem.case.train
        self.call = module

    def reset(self) -> None:
        for leaf in (*self.leaves.values(), *self.module.parameters()):
            leaf.grad = None

    def drop(self) -> None:
        """Lets go of the last call's outputs, and the autograd graph that hangs on them."""

    def run(self) -> None:
        if self.train:
            torch.autograd.backward(self.forward(), self.gradients)
            return
        with torch.inference_mode():
            self.forward()

    def results(self) -> dict[str, torch.Tensor]:
        found = {name: value.detach() for name, value in self.outputs().items()}
        if self.train:
            found |= {"d" + name: leaf.grad for name, leaf in self.leaves.items()}
            for name, parameter in zip(PARAMETERS, self.module.parameters(), strict=True):
                found["d" + name] = parameter.grad
        return found


class LayerRunner(ModuleRunner):
    """`module(x) -> y, state`; a ragged batch goes in as a PackedSequence, or padded with `lengths=`."""

    def __init__(self, module, problem, lengths: bool = False):
        super().__init__(module, problem)
        self.packed = problem.lengths is not None and not lengths
        self.extra = {"lengths": problem.lengths.to(problem.x.device)} if lengths else {}
        x, dy = problem.x, problem.dy
        if self.packed:
            # Packing is the caller's, not the layer's: done once, untimed.
            packed, dy = self.pack(x), self.pack(dy).data
            self.leaves = {"x": problem.leaf(packed.data)}
            self.x = PackedSequence(self.leaves["x"], *packed[1:])
        else:
            self.leaves = {"x": problem.leaf(x)}
            self.x = self.leaves["x"]
        self.gradients = [dy]

    def pack(self, tensor: torch.Tensor) -> PackedSequence:
        return pack_padded_sequence(tensor, self.problem.lengths, enforce_sorted=False)

    def pad(self, packed: PackedSequence) -> torch.Tensor:
        return pad_packed_sequence(packed, total_length=self.problem.case.T)[0]

    def forward(self) -> list[torch.Tensor]:
        self.y, self.state = self.call(self.x, **self.extra)
        return [self.y.data if self.packed else self.y]

    def drop(self) -> None:
        self.y = self.state = None

    def outputs(self) -> dict[str, torch.Tensor]:
        state = self.state if isinstance(self.state, tuple) else (self.state,)
        names = ("h_n", "c_n")[: len(state)]
        return {"y": self.pad(self.y) if self.packed else self.y} | dict(
            zip(names, (s[0] for s in state), strict=True)
        )

    def results(self) -> dict[str, torch.Tensor]:
        found = super().results()
        if self.packed and self.train:
            found["dx"] = self.pad(PackedSequence(found["dx"], *self.x[1:]))
        return found


class CellRunner(ModuleRunner):
    """`module(x, h) -> h`; LSTM: `module(x, (h, c)) -> h, c`."""

    def __init__(self, module, problem):
        super().__init__(module, problem)
        self.leaves = dict(zip(("x", "h", "c"), map(problem.leaf, [problem.x, *problem.state]), strict=False))
        self.x, *state = self.leaves.values()
        self.state = state[0] if len(state) == 1 else tuple(state)
        self.gradients = problem.dstate

    def forward(self) -> list[torch.Tensor]:
        out = self.call(self.x, self.state)
        self.out = [out] if isinstance(out, torch.Tensor) else list(out)
        return self.out

    def drop(self) -> None:
        self.out = None

    def outputs(self) -> dict[str, torch.Tensor]:
        return dict(zip(("h_n", "c_n"), self.out, strict=False))


def module_runner(namespace, problem) -> ModuleRunner:
    """A runner of `namespace.LSTM` or `namespace.LSTMCell` and so on, as the case asks."""
    runner = CellRunner if problem.case.form == "cell" else LayerRunner
    return runner(problem.module(namespace), problem)
