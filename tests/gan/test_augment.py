"""DiffAugment: what each change does, its gradients, its draws, and the steps that see through it."""

import pytest
import torch
from fusegen.gan import DiffAugment, GanOptions, Optimizers, discriminator_step, gan_step, generator_step
from fusegen.models import DCGAN, MLPGAN
from tolerances import agree
from torch import nn

POLICIES = ("color", "translation", "cutout", "color,translation,cutout")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n=64, c=3, h=12, w=16, dtype=torch.float64):
    return torch.rand(n, c, h, w, generator=seeded(5), dtype=dtype) * 2 - 1


def test_translation_moves_each_image_by_whole_pixels_zeros_moved_in():
    x = images()
    y = DiffAugment("translation")(x, generator=seeded())
    shifts = set()
    for before, after in zip(x, y, strict=True):
        found = []
        for down in range(-2, 3):  # an eighth of 12 and of 16, rounded to the nearest
            for right in range(-2, 3):
                moved = torch.zeros_like(before)
                rows = slice(max(down, 0), 12 + min(down, 0)), slice(max(-down, 0), 12 + min(-down, 0))
                columns = slice(max(right, 0), 16 + min(right, 0)), slice(max(-right, 0), 16 + min(-right, 0))
                moved[:, rows[0], columns[0]] = before[:, rows[1], columns[1]]
                found += [(down, right)] if torch.equal(moved, after) else []
        assert len(found) == 1
        shifts |= set(found)
    assert {down for down, _ in shifts} == {right for _, right in shifts} == {-2, -1, 0, 1, 2}


@pytest.mark.parametrize("side", [8, 9])
def test_cutout_empties_a_square_of_half_the_side_cut_by_the_edges(side):
    x = torch.ones(300, 2, side, side)
    y = DiffAugment("cutout")(x, generator=seeded())
    hole, corners = int(side / 2 + 0.5), set()
    for image in y:
        assert torch.equal(image[0], image[1])
        rows, columns = (image[0] == 0).any(1).nonzero().flatten(), (image[0] == 0).any(0).nonzero().flatten()
        assert (image[0][rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] == 0).all()
        assert len(rows) <= hole and len(columns) <= hole
        corners.add((int(rows[0]), int(rows[-1])))
    assert (0, hole - 1) in corners and (side - hole, side - 1) in corners  # whole ones, and cut ones
    assert min(last - first + 1 for first, last in corners) == (hole + 1) // 2


def test_color_is_brightness_saturation_and_contrast_with_the_papers_strengths():
    x = images()
    generator = seeded(3)
    y = DiffAugment("color")(x, generator=generator)
    again = seeded(3)
    shift, saturation, contrast = (torch.rand(64, 1, 1, 1, generator=again).double() for _ in range(3))
    want = x + shift - 0.5
    grey = want.mean(1, keepdim=True)
    want = grey + (want - grey) * 2 * saturation
    middle = want.flatten(1).mean(1).view(-1, 1, 1, 1)
    agree(y, middle + (want - middle) * (contrast + 0.5))
    assert torch.equal(generator.get_state(), again.get_state())


@pytest.mark.parametrize("policy", POLICIES)
def test_gradients_pass_twice(policy):
    x = images(2, 2, 4, 3).requires_grad_()
    augment = DiffAugment(policy)
    assert torch.autograd.gradcheck(lambda t: augment(t, generator=seeded()), x, fast_mode=True)
    curved = lambda t: augment(t, generator=seeded()) ** 3
    assert torch.autograd.gradgradcheck(curved, x, fast_mode=True)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_seed_gives_the_same_changes_and_images_differ_from_each_other(policy, dtype):
    x = images(1, 1, 8, 8, dtype=dtype).expand(40, -1, -1, -1)
    augment = DiffAugment(policy)
    y = augment(x, generator=seeded(1))
    assert torch.equal(y, augment(x, generator=seeded(1))) and y.dtype == dtype and y.shape == x.shape
    assert len(y.flatten(1).unique(dim=0)) > 5
    torch.manual_seed(7)
    first = augment(x)
    torch.manual_seed(7)
    assert torch.equal(first, augment(x)) and not torch.equal(first, augment(x))
    assert DiffAugment(policy.split(",")).policy == DiffAugment(",".join(policy.split(",")[::-1])).policy


def test_the_penalty_is_at_the_changed_points_and_the_gradient_reaches_the_fake_samples():
    torch.manual_seed(0)
    D = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1)).double()
    real, fake = images(8, 1, 8, 8), images(8, 1, 8, 8).flip(0).clone().requires_grad_()
    augment = DiffAugment("color,translation")
    out = discriminator_step(D, augment(real, generator=seeded()), fake.detach(), r1=2.0)
    assert out.path == "fused_mlp"
    changed = augment(real, generator=seeded()).requires_grad_()
    (slope,) = torch.autograd.grad(D(changed).sum(), changed)
    agree(out.penalty, slope.square().sum((1, 2, 3)).mean())

    generator_step(D, augment(fake, generator=seeded())).loss.backward()
    through = fake.grad.clone()
    fake.grad = None
    nn.functional.softplus(-D(augment(fake, generator=seeded()))).mean().backward()
    agree(through, fake.grad)


def test_within_the_discriminator_the_penalty_is_by_the_images_themselves():
    torch.manual_seed(0)
    D = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 1)).double()
    both = nn.Sequential(DiffAugment("cutout"), D)
    real, fake = images(8, 1, 8, 8), images(8, 1, 8, 8).flip(0)
    torch.manual_seed(3)
    out = discriminator_step(both, real, fake, r1=2.0)
    assert out.path == "autograd"
    torch.manual_seed(3)
    x = real.clone().requires_grad_()
    (slope,) = torch.autograd.grad(both(x).sum(), x)
    agree(out.penalty, slope.square().sum((1, 2, 3)).mean())
    assert (slope == 0).any()  # in the hole


@pytest.mark.parametrize(
    "make", [lambda: MLPGAN((1, 8, 8), 4, [8], [8], num_classes=3), lambda: DCGAN(28, 1, 4, 2)]
)
def test_gan_step_with_it_differs_from_one_without_and_is_repeatable(make):
    def weights(augment, seed=1):
        torch.manual_seed(0)
        model = make().train()
        real = images(6, *model.shape, dtype=torch.float32)
        labels = torch.arange(6) % 3 if model.num_classes else None
        gan_step(
            model, real, Optimizers.adam(model, 1e-2), GanOptions(r1=1.0), labels=labels,
            generator=seeded(seed), augment=augment,
        )  # fmt: skip
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    augment = DiffAugment()
    assert torch.equal(weights(augment), weights(augment))
    assert not torch.equal(weights(augment), weights(None)) and weights(augment).isfinite().all()


def test_gan_step_takes_nothing_else_and_updates_nothing_then():
    torch.manual_seed(0)
    model = MLPGAN((1, 8, 8), 4, [8], [8]).train()
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(TypeError, match="augment: expected a DiffAugment, got str"):
        gan_step(model, images(4, 1, 8, 8, torch.float32), Optimizers.adam(model), augment="color")
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: DiffAugment("colour"), ValueError, "policy: expected some of color, .*'colour'"),
        (lambda: DiffAugment(""), ValueError, "policy: expected some of"),
        (lambda: DiffAugment([]), ValueError, "policy: expected some of"),
        (lambda: DiffAugment("color,color"), ValueError, "each once"),
        (lambda: DiffAugment(3), TypeError, "policy: expected text or a sequence of it, got int"),
        (lambda: DiffAugment()(torch.zeros(2, 8, 8)), ValueError, r"images: expected shape \[N, C, H, W\]"),
        (lambda: DiffAugment()(torch.zeros(1, 1, 2, 2).long()), TypeError, "images: expected a float"),
        (lambda: DiffAugment()(torch.zeros(1, 1, 2, 2), generator=1), TypeError, "generator: expected"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
