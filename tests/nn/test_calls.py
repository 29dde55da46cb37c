"""What a type checker is told that layers and cells give, which their call itself says nothing of."""

import fusegen.nn
import pytest
import torch

LAYERS = {
    "LSTM(2, 3)": "tuple[Tensor, Tensor]",
    "GRU(2, 3)": "Tensor",
    "RNN(2, 3)": "Tensor",
    "LayerNormLSTM(2, 4)": "tuple[Tensor, Tensor]",
    "LayerNormGRU(2, 4)": "Tensor",
    "BlockDiagonalLSTM(2, 4, block_diagonal=2)": "tuple[Tensor, Tensor]",
    "BlockDiagonalGRU(2, 4, block_diagonal=2)": "Tensor",
    "BlockDiagonalRNN(2, 4, block_diagonal=2)": "Tensor",
}
CELLS = {
    "LSTMCell(2, 3)": "tuple[Tensor, Tensor]",
    "GRUCell(2, 3)": "Tensor",
    "RNNCell(2, 3)": "Tensor",
    "LayerNormLSTMCell(2, 4)": "tuple[Tensor, Tensor]",
    "LayerNormGRUCell(2, 4)": "Tensor",
    "BlockDiagonalLSTMCell(2, 4, block_diagonal=2)": "tuple[Tensor, Tensor]",
    "BlockDiagonalGRUCell(2, 4, block_diagonal=2)": "Tensor",
    "BlockDiagonalRNNCell(2, 4, block_diagonal=2)": "Tensor",
}


@pytest.mark.slow  # mypy reads torch anew
def test_types_of_calls(tmp_path):
    """One run of mypy for all; the one error it finds is the one that is there."""
    api = pytest.importorskip("mypy.api")
    lines = [
        "import fusegen.nn as nn",
        "from torch import Tensor",
        "from torch.nn.utils.rnn import PackedSequence",
        "from typing_extensions import assert_type",
        "def calls(x: Tensor, packed: PackedSequence) -> None:",
    ]
    for made, state in LAYERS.items():
        lines += [
            f"    assert_type(nn.{made}(x, lengths=[1]), tuple[Tensor, {state}])",
            f"    assert_type(nn.{made}(packed), tuple[PackedSequence, {state}])",
        ]
    lines += [f"    assert_type(nn.{made}(x), {state})" for made, state in CELLS.items()]
    lines += ["    nn.GRUCell(2, 3)(x, lengths=[1])"]
    path = tmp_path / "calls.py"
    path.write_text("\n".join(lines) + "\n")
    ends = ["--cache-dir", str(tmp_path / "cache"), "--follow-imports", "silent", "--config-file", ""]
    said, failed, _ = api.run([str(path), *ends])
    assert not failed, failed
    errors = [line for line in said.splitlines() if ": error: " in line]
    assert len(errors) == 1 and f"{path}:{len(lines)}: error: Unexpected keyword argument" in errors[0], said


@pytest.mark.parametrize("made", [*LAYERS, *CELLS], ids=lambda made: made.partition("(")[0])
def test_the_call_itself_is_torchs(made):
    module = eval(f"fusegen.nn.{made}", {"fusegen": fusegen})
    own = [cls for cls in type(module).__mro__ if "__call__" in vars(cls)]
    assert own[0] is torch.nn.Module
    assert not any("__call__" in vars(cls).get("__annotations__", {}) for cls in type(module).__mro__[:-2])
