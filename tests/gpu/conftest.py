"""float32 as it is."""

import pytest
import torch
from fusegen import _precision


@pytest.fixture
def true_float32(monkeypatch):
    """float32 is float32 in the recurrence and in torch's products around it."""
    monkeypatch.setattr(_precision, "recurrence_in_tf32", lambda dtype: False)
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    yield
    matmul.allow_tf32, cudnn.allow_tf32 = before
