"""What timing on a GPU needs: its clock, and torch's switches for TF32."""

from __future__ import annotations

from contextlib import contextmanager

import torch


class CudaClock:
    """Mean seconds of `calls` calls between two events each, on the stream they run on.

    Before each, the L2 cache is emptied by a write of twice its size, which also gives the host a start of
    some microseconds: a call whose launches take the host longer than its work the GPU still shows that.
    """

    def __init__(self):
        size = 2 * torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
        self.flush = torch.empty(max(size, 1 << 20), dtype=torch.uint8, device="cuda")

    def __call__(self, runner, calls: int) -> float:
        pairs = []
        for _ in range(calls):
            runner.reset()
            self.flush.zero_()
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            runner.run()
            end.record()
            pairs.append((start, end))
        torch.cuda.synchronize()
        return sum(start.elapsed_time(end) for start, end in pairs) / calls / 1e3


@contextmanager
def precision(dtype: str):
    """torch's switches for float32 products, in recurrent layers and outside: TF32 for the dtype "tf32"."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = dtype == "tf32"
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
