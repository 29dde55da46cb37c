"""A GAN of series learns what its Gaussian beginning lacks."""

import pytest
import torch
from fusegen.data import Innovations
from fusegen.gan import GanOptions, Optimizers, gan_step
from fusegen.metrics import series_errors
from fusegen.models import RecurrentGAN

T, N = 8, 2000


@pytest.mark.slow
def test_of_two_levels_it_draws_two():
    """Each sequence lies about -0.5 or about 0.5: a Gaussian puts most in between."""
    random = torch.Generator().manual_seed(0)
    sides = torch.randint(2, (1, N, 1), generator=random) - 0.5
    x = sides + 0.1 * torch.randn(T, N, 1, generator=random)
    form = Innovations.fit(x)
    learnt = form(x)
    torch.manual_seed(0)
    model = RecurrentGAN(
        1, steps=T, noise_size=5, shared=4, hidden_size=16, cell="gru", output="linear", ema=0.98,
        residual=True, bidirectional=True, levels=form.levels_map(T),
    )  # fmt: skip

    def error():
        drawn = form.inverse(model.sample(N, generator=torch.Generator().manual_seed(1)))
        return series_errors(x, drawn)["marginal error"]

    optimizers, begun = Optimizers.adam(model, 5e-3), error()
    options = GanOptions(loss="relativistic", r1=0.02, r2=0.02, penalty_every=2, penalty_noise=0.1)
    for step in range(400):
        gan_step(model, learnt[:, torch.randint(N, (64,))], optimizers, options, step=step)
    # 0.39 and 0.15 by seed 0; where the discriminator sees no levels, 0.39 stay.
    assert begun > 0.35 and error() < 0.6 * begun
