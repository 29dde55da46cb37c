"""A residual generator learns by likelihood what its Gaussian beginning lacks."""

import torch
from fusegen.data import Innovations
from fusegen.metrics import series_errors
from fusegen.models import RecurrentGAN

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
