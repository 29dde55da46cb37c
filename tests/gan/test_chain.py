"""What is read of a discriminator, and which route it then takes."""

import pytest
import torch
from fusegen.gan import chain
from fusegen.gan.layouts import activation_gradient
from fusegen.gan.objective import Objective
from fusegen.gan.request import Request
from fusegen.gan.routes import autograd, closed_form, convolution, dense, generator
from torch import nn
from torch.nn.utils import parametrizations


def image_chain():
    return nn.Sequential(
        nn.Conv2d(2, 4, 4, 2, 1), nn.BatchNorm2d(4), nn.LeakyReLU(0.2), nn.Identity(),
        nn.Sequential(nn.Conv2d(4, 3, 3), nn.ReLU()), nn.Flatten(), nn.Linear(12, 1),
    )  # fmt: skip


def test_a_chain_as_it_is_read():
    D = image_chain()
    found = chain.parse(D)
    assert found.layers == (D[0], D[4][0], D[6]) and found.convolves
    assert found.slopes == (0.2, 0.0, 1.0) and found.norms == {0: D[1]} and found.flattens == {2}
    maps = chain.maps(found, (2, 8, 8))
    assert [(m.inner, m.outer) for m in maps] == [((8, 8), (4, 4)), ((4, 4), (2, 2)), ((2, 2), ())]
    assert [m.flatten for m in maps] == [False, False, True]
    assert [m.weight_shape for m in maps] == [tuple(m.module.weight.shape) for m in maps]


def test_a_parametrised_layer_is_the_layer_and_is_not_read():
    D = nn.Sequential(parametrizations.spectral_norm(nn.Linear(3, 1)))
    before = D[0].parametrizations.weight[0]._u.clone()
    assert not chain.parse(D).convolves
    assert torch.equal(D[0].parametrizations.weight[0]._u, before)


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        ([], "D has no Linear and no convolution"),
        ([nn.ReLU(), nn.Linear(3, 1)], "ReLU has to stand directly behind a Linear, a convolution"),
        ([nn.Linear(3, 2), nn.ReLU(), nn.ReLU(), nn.Linear(2, 1)], "ReLU has to stand directly behind"),
        ([nn.Linear(3, 1), nn.ReLU()], "does not end in a Linear or a convolution"),
        ([nn.Linear(3, 1), nn.BatchNorm1d(1)], "does not end in a Linear or a convolution"),
        ([nn.Linear(3, 2)], "one logit"),
        (
            [nn.Linear(3, 2), nn.BatchNorm2d(2), nn.Linear(2, 1)],
            "BatchNorm2d has to stand directly behind a layer that it fits",
        ),
        ([nn.Linear(3, 2), nn.BatchNorm1d(2).eval(), nn.Linear(2, 1)], "evaluation mode"),
        ([nn.Linear(3, 2), nn.Flatten(0), nn.Linear(2, 1)], "Flatten has to keep the first dim"),
        (
            [nn.Sequential(nn.Linear(3, 2), nn.Sequential(nn.Softplus())), nn.Linear(2, 1)],
            "does not know Softplus, only Linear",
        ),
        ([nn.Linear(3, 2), nn.Tanh(), nn.Tanh(), nn.Linear(2, 1)], "Tanh has to stand directly behind"),
        ([nn.Linear(3, 1), nn.Tanh()], "does not end in a Linear or a convolution"),
        (
            [nn.Linear(3, 2), nn.Dropout(0.5), nn.BatchNorm1d(2), nn.Linear(2, 1)],
            "BatchNorm1d has to stand directly behind a layer that it fits",
        ),
    ],
)
def test_what_is_in_the_way(layers, reason):
    assert reason in chain.parse(nn.Sequential(*layers))


@pytest.mark.parametrize(
    ("layers", "shape", "reason"),
    [
        ([nn.Conv2d(2, 1, 3), nn.Linear(6, 1)], (2, 8, 8), "more than one dim"),
        ([nn.Flatten(), nn.Conv1d(2, 1, 1)], (2, 8), "a convolution stands behind Flatten"),
        ([nn.Conv2d(2, 1, 9)], (2, 8, 8), "Conv2d does not fit"),
        ([nn.Conv2d(2, 1, 3)], (3, 8, 8), "Conv2d does not fit"),
        ([nn.Conv1d(2, 1, 3)], (2, 8, 8), "Conv1d does not fit"),
        ([nn.Conv2d(2, 1, 3, padding="same")], (2, 8, 8), "pads in another way"),
        ([nn.Conv2d(2, 1, 3), nn.Flatten()], (2, 8, 8), "one logit"),
        ([nn.Conv2d(2, 1, 8)], (2, 0, 8), "empty"),
    ],
)
def test_samples_that_do_not_fit_a_chain(layers, shape, reason):
    assert reason in chain.maps(chain.parse(nn.Sequential(*layers)), shape)


DENSE = [nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1)]
CONVOLUTIONS = [nn.Conv1d(2, 4, 2), nn.ReLU(), nn.Conv1d(4, 1, 3)]
OF_ANOTHER_KIND = ""


@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize(
    ("layers", "shape", "plans"),
    [
        (DENSE, (64, 4), {dense}),
        (CONVOLUTIONS, (64, 2, 4), {convolution, closed_form}),
        ([*DENSE[:2], nn.Tanh(), nn.Linear(3, 1)], (64, 4), set()),
    ],
    ids=["dense", "convolutions", "smooth"],
)
def test_one_route_fits_and_the_others_say_why(layers, shape, plans, penalty):
    D, x = nn.Sequential(*layers), torch.randn(shape)
    objective = Objective("hinge", r1=penalty)
    request = Request(D, chain.parse(D), objective, x, x, mixed=None, dim=0, together=None)
    fit = {route for route in (dense, convolution, closed_form) if not isinstance(route.fits(request), str)}
    other = convolution if penalty else closed_form
    assert fit == plans - {other} and other.fits(request) == OF_ANOTHER_KIND
    assert not isinstance(autograd.fits(request), str) and not isinstance(generator.fits(request), str)


@pytest.mark.parametrize("slope", [0.0, 0.2, 1.0])
def test_activation_gradient_is_torchs(slope):
    values = torch.tensor([-2.0, -0.0, 0.0, 3.0, torch.nan, torch.inf, -torch.inf])
    a, dh = (t.flatten() for t in torch.meshgrid(values, values, indexing="ij"))
    x = a.clone().requires_grad_()
    h = torch.relu(x) if slope == 0.0 else nn.functional.leaky_relu(x, slope)
    (want,) = torch.autograd.grad(h, x, dh)
    torch.testing.assert_close(activation_gradient(dh, h.detach(), slope), want, equal_nan=True)
