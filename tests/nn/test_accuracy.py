"""float32 error against float64: no more than twice torch's own, over five seeds, up to 1000 steps."""

import pytest
import torch
from cases import CELL_NAMES, CELLS, cell, flat, grads, layer, pair

SEEDS = range(5)
SHAPES = ((32, 48, 4, 1000), (64, 64, 16, 50), (7, 128, 3, 200))


def errors(make, cell_name, shape, seeds=SEEDS):
    """RMS error of every output and gradient, (ours, torch's), over the seeds."""
    ours, theirs = None, None
    for seed in seeds:
        torch.manual_seed(seed)
        I, H, B, T = shape
        mine, exact = pair(make, cell_name, I, H, torch.float32)
        plain = make(cell_name, I, H, own=False)
        plain.load_state_dict(mine.state_dict())
        x = torch.randn(T, B, I) if make is layer else torch.randn(B, I)
        results, w = [], None
        for m, dtype in ((exact, torch.float64), (mine, torch.float32), (plain, torch.float32)):
            given = x.to(dtype).requires_grad_()
            out = flat(m(given))
            w = w or [torch.randn_like(o) for o in out]
            results.append([*out, *grads(out, [given, *m.parameters()], w)])
        both = [
            [(g.double() - e).square().mean() for g, e in zip(r, results[0], strict=True)]
            for r in results[1:]
        ]
        ours = both[0] if ours is None else [a + b for a, b in zip(ours, both[0], strict=True)]
        theirs = both[1] if theirs is None else [a + b for a, b in zip(theirs, both[1], strict=True)]
        names = [f"output {i}" for i in range(len(out))] + ["x", *(n for n, _ in mine.named_parameters())]
    n = len(seeds)
    return {
        k: ((a / n).sqrt().item(), (b / n).sqrt().item()) for k, a, b in zip(names, ours, theirs, strict=True)
    }


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("cell_name", CELL_NAMES)
def test_layers(cell_name, shape):
    if shape[3] > 50:
        torch.set_num_threads(1)  # torch's own long float64 runs crawl when two threads share busy cores
    for name, (ours, theirs) in errors(layer, cell_name, shape).items():
        assert ours <= 2 * theirs, f"{name}: RMS error {ours:.2e}, torch's {theirs:.2e}"


@pytest.mark.parametrize("cell_name", CELLS)
def test_cells(cell_name):
    for name, (ours, theirs) in errors(cell, cell_name, (65, 130, 33, 1)).items():
        assert ours <= 2 * theirs, f"{name}: RMS error {ours:.2e}, torch's {theirs:.2e}"
