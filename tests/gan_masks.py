"""Torch's own discriminator with the masks that a fused step drew: the oracle of its dropout."""

import torch
from fusegen import losses
from fusegen.gan import dropout_masks
from torch import nn

GROUPS = ("real", "fake", "mixed")


class Masked(nn.Module):
    """D, its Dropouts multiplying by given masks: ``kept`` is what ``dropout_masks`` gives, ``group`` whose
    samples come. pac: how many lie side by side."""

    def __init__(self, D, kept, pac=1):
        super().__init__()
        self.D, self.kept, self.pac, self.group = D, kept, pac, 0

    def forward(self, x):
        x = x.reshape(len(x) // self.pac, -1, *x.shape[2:])
        maps, met = 0, False
        for m in self.D:
            if isinstance(m, nn.Dropout) and m.training and m.p:
                x = x / (1 - m.p)
                # of several in a row the mask is one
                x = x if met else x * self.kept[maps][self.group].reshape(x.shape)
                met = True
                continue
            maps, met = (maps + 1, False) if isinstance(m, nn.Linear) else (maps, met)
            x = m(x)
        return x.flatten(1).mean(1)


def masks_of(D, out, mixed):
    """The masks of the step that gave ``out``."""
    if out.key is None:
        return None
    rows = {"real": len(out.real_logits), "fake": len(out.fake_logits), "mixed": mixed}
    return dropout_masks(D, out.key, **rows)


def eager(net, real, fake, loss, mixed=None, r1=0.0, r2=0.0, gp=0.0):
    """The step of a ``Masked`` in plain autograd: a pass for each kind of samples, whose logits and input
    gradients are of one mask; and create_graph for the penalties. Samples lie along the first dim."""

    def through(group, x):
        net.group = group
        x = x if x.requires_grad else x.detach().requires_grad_()
        z = net(x)
        (v,) = torch.autograd.grad(z.sum(), x, create_graph=True)
        return z, v.reshape(len(x) // net.pac, -1)

    (r, of_real), (f, of_fake) = through(0, real), through(1, fake)
    total = losses.discriminator_loss(loss, r, f)
    total = total + r1 / 2 * of_real.square().sum(1).mean() + r2 / 2 * of_fake.square().sum(1).mean()
    if gp:
        norm = torch.linalg.vector_norm(through(2, mixed)[1], dim=1)
        total = total + gp * (norm - 1).square().mean()
    return total, r, f
