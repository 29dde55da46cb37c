"""What the GANs reach on real data, against a Gaussian fit of the same data.

Measured on one thread of a Zen 5 core, CPU seconds of training and the digits Frechet distance as a share of
the Gaussian's (5,000 samples each); the second column is the same run with set_backend("torch"):

RESULTS
"""

import time

import pytest
import torch
from fusegen.gan import GanOptions, Optimizers, gan_step
from fusegen.models import MLPGAN

STEPS, BATCH, SAMPLES = 3000, 64, 5000


def trained(model, x, steps, options, rate, generator):
    optimizers = Optimizers.adam(model, rate)
    for step in range(steps):
        real = x[torch.randint(len(x), (BATCH,), generator=generator)]
        gan_step(model, real, optimizers, options, step=step, generator=generator)
    return model


def share_of_gaussian(x, sample, reference=None):
    """The digits Frechet distance of ``sample(n, generator)`` to x, over that of a Gaussian fitted to x."""
    from fusegen.metrics import GaussianFit, digits_frechet_distance

    reference = x if reference is None else reference
    random = torch.Generator().manual_seed(1)
    base = digits_frechet_distance(reference, GaussianFit(x).sample(SAMPLES, random))
    return digits_frechet_distance(reference, sample(SAMPLES, random)) / base


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_mlpgan_on_digits_beats_half_a_gaussian(seed):
    pytest.importorskip("sklearn")
    from fusegen.data import digits

    x = digits(28).samples()
    torch.manual_seed(seed)
    model = MLPGAN(ema=0.999)
    start = time.process_time()
    trained(model, x, STEPS, GanOptions(r1=1.0), 1e-3, torch.Generator().manual_seed(seed))
    spent = time.process_time() - start
    assert spent < 300, f"{spent:.0f} CPU seconds: more than 5 minutes even on one core"
    share = share_of_gaussian(x, lambda n, random: model.sample(n, generator=random))
    print(f"seed {seed}: {share:.3f} of the Gaussian's distance after {spent:.0f} CPU s")
    assert share <= 0.5
