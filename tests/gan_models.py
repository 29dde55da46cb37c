"""Small GANs of every kind, and samples and labels for them."""

import torch
from fusegen.data import Innovations
from fusegen.models import DCGAN, MLPGAN, RecurrentGAN

N, T = 6, 5


def mlp(**options):
    return MLPGAN((1, 6, 6), 8, (16, 12), (16, 10), **options)


def dcgan(size=28, channels=1, **options):
    return DCGAN(size, channels, 8, 4, **options)


def series(**options):
    return RecurrentGAN(3, steps=T, noise_size=4, hidden_size=8, **options)


def residual(begun=True, **options):
    """All that a series' GAN may have besides. begun: no longer with the zeros it begins with."""
    random = torch.Generator().manual_seed(0)
    form = Innovations.fit(torch.randn(T, 50, 3, generator=random).cumsum(0))
    options = {"cell": "gru", "output": "linear", "bidirectional": True, **options}
    model = RecurrentGAN(
        3, steps=T, noise_size=7, shared=2, hidden_size=8, residual=True, levels=form.levels_of(T), **options
    )
    if begun:
        drawn = torch.randn(model.generator.head.weight.shape) / 4
        for net in {model.generator, model.drawn_from}:
            net.head.weight.data.copy_(drawn)
    return model


def text(**options):
    return RecurrentGAN(vocab_size=7, steps=T, noise_size=4, hidden_size=8, cell="gru", **options)


MODELS = {"mlp": mlp, "dcgan": dcgan, "series": series, "residual": residual, "text": text}


def real_of(model, n=N):
    """Samples as a user has them."""
    if not isinstance(model, RecurrentGAN):
        return torch.rand(n, *model.shape) * 2 - 1
    if model.vocab_size:
        return torch.randint(model.vocab_size, (T, n))
    return torch.rand(T, n, model.features) * 2 - 1


def labels_of(model, n=N):
    return torch.arange(n) % model.num_classes if model.num_classes else None


def state(net):
    return {name: t.clone() for name, t in net.state_dict().items()}


def same_state(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
