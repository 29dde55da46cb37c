"""A residual generator learns by likelihood what its Gaussian beginning lacks."""

import pytest
import torch
from fusegen.data import Innovations
from fusegen.metrics import series_errors
from fusegen.models import RecurrentGAN
from tolerances import agree

T, N = 8, 2000


def test_calm_and_wild_sequences_stay_calm_and_wild():
    """Half of the sequences are a fifth as wild as the others: the sizes of their changes go together, which
    a Gaussian process does not have."""
    random = torch.Generator().manual_seed(0)
    wild = torch.where(torch.rand(1, N, 1, generator=random) < 0.5, 0.1, 0.5)
    x = wild * torch.randn(T, N, 1, generator=random)
    form = Innovations.fit(x)
    learnt = form(x)
    torch.manual_seed(0)
    model = RecurrentGAN(
        1, steps=T, noise_size=6, shared=4, hidden_size=16, cell="gru", output="linear", residual=True
    )

    def error():
        drawn = form.inverse(model.sample(N, generator=torch.Generator().manual_seed(1)))
        return series_errors(x, drawn)["autocorrelation error of sizes of changes"]

    optimizer, begun = torch.optim.Adam(model.generator.parameters(), 1e-2), error()
    for _ in range(150):
        optimizer.zero_grad()
        model.surprise(learnt[:, torch.randint(N, (64,))]).backward()
        optimizer.step()
    assert begun > 0.25 and error() < 0.5 * begun  # 0.31 and 0.05 with an average of the weights


def residual(features, steps=T):
    return RecurrentGAN(
        features,
        steps=steps,
        noise_size=4 + 2 * features,
        shared=4,
        hidden_size=8,
        cell="gru",
        output="linear",
        residual=True,
    ).double()


@pytest.mark.parametrize("features", [1, 4])
def test_the_likelihood_is_that_of_the_change_of_variables(features):
    """-log p of what is drawn is that of its own noise and the logarithm of the Jacobian's determinant."""
    torch.manual_seed(0)
    model = residual(features, steps=5)
    G = model.generator
    with torch.no_grad():
        for p in G.parameters():
            p.add_(0.3 * torch.randn_like(p))
    noise = model.noise(1, 5)
    own = noise[..., 4 : 4 + features].clone()

    def drawn(own):
        return G(torch.cat((noise[..., :4], own, noise[..., 4 + features :]), 2))

    jacobian = torch.autograd.functional.jacobian(drawn, own).view(5 * features, 5 * features)
    wanted = (own.square().sum() / 2 + jacobian.slogdet().logabsdet) / own.numel()
    agree(G.surprise(drawn(own), noise), wanted)
    assert (G.within is None) == (features == 1)


def test_sizes_within_a_step_go_together():
    """Two features, calm or wild together from step to step: their innovations are not correlated, and what
    one says of the other's size is learnt."""
    random = torch.Generator().manual_seed(0)
    wild = torch.where(torch.rand(T, N, 1, generator=random) < 0.5, 0.1, 0.5)
    x = wild * torch.randn(T, N, 2, generator=random)
    form = Innovations.fit(x)
    learnt = form(x)
    torch.manual_seed(0)
    model = residual(2).float()

    def together(x):
        sizes = x.abs().flatten(0, 1)
        return sizes.T.corrcoef()[0, 1].item()

    optimizer = torch.optim.Adam(model.generator.parameters(), 3e-2)
    drawn = lambda: form.inverse(model.sample(N, generator=torch.Generator().manual_seed(1)))
    assert together(x) > 0.25 and abs(together(drawn())) < 0.03
    for _ in range(80):
        optimizer.zero_grad()
        model.surprise(learnt[:, torch.randint(N, (64,))]).backward()
        optimizer.step()
    assert together(drawn()) > 0.12
