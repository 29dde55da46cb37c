"""A GAN as a task: the discriminator's and the generator's turns, on images, series or text."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .... import drawing
from ....data import Shuffled
from ....gan import DiffAugment, GanOptions
from ....gan.turns import discriminator_turn, generator_turn
from ....models import GAN, RecurrentGAN
from ....models.gan.dcgan import SIZES
from ... import config
from ...task import Losses, Task, Turn
from ...watching.divergence import OF_SERIES, OF_TURNS, DivergenceWatch, Watches
from ...watching.watch import Watch
from ...workers import Shard
from ..room import built
from .idle import of_asking, of_training
from .moments import Moments
from .options import (
    ARCHS,
    PRESETS,
    TEXTS,
    WEIGHTS,
    GanData,
    GanFit,
    GanMeasuring,
    GanModel,
    GanRun,
    GanSampling,
    is_text,
)
from .reading import kind_of, name_of, read_source, revived
from .series import SOUNDS, is_sound
from .source import Source, beginnings
from .watch import GanWatch

__all__ = ["GanBatches", "GanTask"]


class GanTask(Task):
    """Teaches both networks of a `GAN`; the turns are those of `gan_step`, each on fake samples
    of its own.

    source: the data, or what is known of them where they are not to be touched. model: the GAN. fit, cut: the
    options of training and of the data. Raises TypeError or ValueError, naming the option, for those that do
    not fit together. Source: Goodfellow et al. 2014 (arXiv:1406.2661).
    """

    options = {"model": GanModel, "data": GanData, "fit": GanFit, "run": GanRun}  # noqa: RUF012
    sampling = GanSampling
    measuring = GanMeasuring
    curves = True
    sizes = "batch", "length", "samples", *dict.fromkeys(sum(WEIGHTS.values(), ())), "count", "interpolate"

    def __init__(self, model: GAN, source: Source, fit: GanFit, cut: GanData):
        self.model, self.source, self._fit, self._cut = model, source, fit, cut
        self.skipped, self.notes = source.skipped, (*source.notes, *_truncated(fit, cut, source))
        self.reads = cut.batch, "samples"
        names = ("loss", "r1", "r2", "gp", "label_smoothing", "generator_every")
        # A preset's own stand aside where its penalty is switched off; 0 asks for the exact penalty.
        every, near_real, near_fake = fit.penalty_every, fit.approximate_r1, fit.approximate_r2
        self.rules = GanOptions(
            **{name: getattr(fit, name) for name in names},
            penalty_every=every if fit.r1 or fit.r2 or fit.gp else 1,
            approximate_r1=near_real if near_real and fit.r1 else None,
            approximate_r2=near_fake if near_fake and fit.r2 else None,
        )
        self._augment = _augmentation(fit.augment, source)
        self._warm_up = fit.warm_up if isinstance(model, RecurrentGAN) and model.foretells else 0
        if fit.moments and source.kind != "series":
            raise ValueError(f"moments: series have them, and {source.name} has {source.kind}")
        self.learns = _stages(self._warm_up, fit.steps)
        self._step = 0

    @cached_property
    def _moments(self) -> Moments | None:
        """Made when it is first asked for: drawing needs no data."""
        return self.source.moments(self.model, self._fit.truncate) if self._fit.moments else None

    @classmethod
    def presets(cls, given: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
        arch, name = given.get("arch", ARCHS[0]), given.get("data")
        kinds = [arch] if isinstance(arch, str) else []
        if arch == "mlp" and given.get("conditional") is True:
            kinds.append("conditional")
        if arch == "recurrent" and isinstance(name, str):
            kinds += ["text"] if is_text(name) else ["sounds"] if is_sound(name) else []
        found: dict[str, dict[str, Any]] = {}
        for kind in kinds:
            for section, own in PRESETS.get(kind, {}).items():
                found.setdefault(section, {}).update(own)
        return found

    @classmethod
    def variants(cls) -> Mapping[str, Mapping[str, Any]]:
        return {
            "": {},
            "conditional": {"conditional": True},
            "dcgan": {"arch": "dcgan"},
            "series": {"arch": "recurrent"},
            "sounds": {"arch": "recurrent", "data": SOUNDS[0]},
            "text": {"arch": "recurrent", "data": TEXTS[0]},
        }

    @classmethod
    def from_options(
        cls, sections: Mapping[str, Any], folder: Path | None, *, data: bool = True, argument: str = "data"
    ) -> "GanTask":
        options, cut, fit = sections["model"], sections["data"], sections["fit"]
        if options.arch == "dcgan" and cut.size not in SIZES:
            sizes = ", ".join(map(str, SIZES))
            raise ValueError(f"size: expected one of {sizes} for --arch dcgan, got {cut.size}")
        kept = folder / "data.json" if folder else None
        source: Source
        if data:
            source = read_source(options.arch, cut, argument, folder)
            source.check_enough(
                cut, config.defaults(cls, {"arch": options.arch, "data": cut.data})["data"].batch
            )
            if folder and kept and not kept.exists():
                source.keep(folder)
        elif folder is None or kept is None or not kept.exists():
            raise FileNotFoundError(f"{argument}: {kept} is missing, without which nothing can be drawn")
        else:
            source = revived(folder, config.read_json(kept, argument))
        if options.conditional and not source.classes:
            raise ValueError(f"conditional: {source.name} has no classes")
        if source.kind != "text":
            drawing.check()  # now, not at the first sample
        weights = WEIGHTS[options.arch]
        task = cls(built(lambda: source.model(options), weights, options, cut), source, fit, cut)
        task.weights = weights
        if data:
            source.check_measured(task.model, cut.samples)
        return task

    @classmethod
    def idle(cls, sections: Mapping[str, Any]) -> dict[str, str]:
        arch, cut = sections["model"].arch, sections["data"]
        return of_training(kind_of(arch, cut), name_of(arch, cut), sections)

    def idle_in(self, how: GanSampling | GanMeasuring) -> dict[str, str]:
        return of_asking(self.source.kind, how)

    def data(self, shard: Shard) -> "GanBatches":
        part = shard.of(self._cut.batch)
        if self._fit.moments and part.stop - part.start < 2:
            parts = f"each of {shard.count} parts (processes x accumulate) of " if shard.count > 1 else ""
            raise ValueError(
                f"batch: expected at least {2 * shard.count}, for --moments compares two halves of {parts}a "
                f"batch, got {self._cut.batch}; or give --moments 0"
            )
        rows = Shuffled(len(self.source), self._cut.batch, self._fit.seed, part)
        return GanBatches(self.source, rows, self._fit.truncate)

    def watch(self, *, stop_when_diverged: bool = False) -> Watch:
        fit = self._fit
        own = GanWatch(self.source, fit.loss, fit.steps, stop=fit.stop_when_collapsed, warm_up=self._warm_up)
        limits = OF_SERIES if self.source.kind == "series" else OF_TURNS
        diverged = DivergenceWatch(self.better, stop=stop_when_diverged, limits=limits)
        return Watches(own, divergence=diverged)

    def at(self, step: int, steps: int) -> None:
        self._step = step

    def turns(self) -> tuple[Turn, ...]:
        fit = self._fit
        adam = lambda net, lr: torch.optim.Adam(net.parameters(), lr, (fit.beta1, fit.beta2), fused=True)
        return (
            Turn(
                "discriminator",
                self.model.discriminator,
                self.discriminator_turn,
                rate=fit.critic_rate,
                optimizer=adam,
            ),
            Turn(
                "generator",
                self.model.generator,
                self.generator_turn,
                every=fit.generator_every,
                optimizer=adam,
            ),
        )

    def loss(self, model: nn.Module, batch: Any, carried: Any) -> tuple[Losses, Any]:
        """The discriminator's."""
        return self.discriminator_turn(model, batch, carried)

    def discriminator_turn(
        self, D: nn.Module, batch: Mapping[str, Tensor], carried: Any
    ) -> tuple[Losses, None]:
        """The discriminator's loss with the penalties due, and what to know of it."""
        with torch.no_grad():
            real, fake = self._both(batch)
        out = discriminator_turn(self.model, real, fake, self.rules, self._step)
        assert out.real_logits is not None
        losses = {
            "discriminator loss": out.loss,
            "real logit": out.real_logits.float().mean(),
            "fake logit": out.fake_logits.float().mean(),
            "real sign": out.real_logits.sign().float().mean(),
        }
        return losses | ({"penalty": out.penalty} if self.rules.penalties(self._step) else {}), None

    def generator_turn(self, G: nn.Module, batch: Mapping[str, Tensor], carried: Any) -> tuple[Losses, None]:
        """The generator's loss through the discriminator, which learns nothing, by likelihood, by moments."""
        fit, model = self._fit, self.model
        losses: dict[str, Tensor] = {}
        warming = self._step < self._warm_up
        weights = {"surprise": 1.0 if warming else fit.supervised, "moments": fit.moments}
        if weights["surprise"] and isinstance(model, RecurrentGAN) and model.foretells:
            losses["surprise"] = model.surprise(batch["real"], *self._besides(batch))
        if not warming or self._moments is not None:
            real, fake = self._both(batch)
        if self._moments is not None:
            losses["moments"] = self._moments(fake[..., : model.features], batch.get("lengths"))
        parts = [weights[name] * x for name, x in losses.items()]
        if not warming:
            parts.insert(0, generator_turn(model, real, fake, self.rules).loss)
        return {"generator loss": torch.stack(parts).sum(), **losses}, None

    def _both(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Real and as many fake samples, of the same labels and lengths, as the discriminator takes them."""
        model, besides = self.model, self._besides(batch)
        real = model.critic_input(batch["real"], *besides)
        fake = model.fakes(real, *besides)
        if self._augment is not None:  # before labels stand beside them
            real, fake = model.critic_input(self._augment(batch["real"]), *besides), self._augment(fake)
        return real, model.critic_input(fake, *besides)

    def _besides(self, batch: Mapping[str, Tensor]) -> tuple[Tensor | None, Tensor | None]:
        """Labels, of a model with classes, and lengths."""
        return batch.get("labels") if self.model.num_classes else None, batch.get("lengths")

    def evaluate(self, model: GAN | None = None) -> dict[str, float]:
        """The measure that tells of progress, the quickest of `measure`."""
        cut = self._cut
        how = GanMeasuring(features=cut.features, samples=cut.samples, score_steps=cut.score_steps)
        return self.source.measures(self.model if model is None else model, how, full=False)

    def measure(self, how: GanMeasuring) -> dict[str, float]:
        own = {"features": self._cut.features, "samples": self._cut.samples}
        asked = {name: value for name, value in vars(how).items() if value is not None}
        self.source.told = self.measuring_part
        how = GanMeasuring(**{**own, **asked})
        assert how.samples is not None
        self.source.check_measured(self.model, how.samples)
        return self.source.measures(self.model, how, full=True)

    def told_of(self, how: GanMeasuring) -> tuple[str, ...]:
        if self.source.kind != "series":
            return ()
        own = self._cut.score_steps
        other = "" if own == how.score_steps else f"; of {own} while it trained, which gives other scores"
        return (f"scores are by networks of {how.score_steps} steps (--score-steps){other}",)

    def sample(self, how: GanSampling, model: GAN | None = None) -> dict[str, str | bytes]:
        """Images or series beside some of the data under ".png", sequences in the units of the data under
        ".npy" too; text under ".txt". Raises ValueError for a class that there is not."""
        gan = self.model if model is None else model
        if how.class_ is not None and not gan.num_classes:
            raise ValueError("class_: this run's model has no classes; train with --conditional")
        if how.interpolate and self.source.kind != "images":
            raise ValueError(f"interpolate: it is for images, and this run's model makes {self.source.kind}")
        return self.source.drawn(gan, how)

    def fingerprint(self) -> str:
        return self.source.fingerprint()


def _stages(warm_up: int, steps: int) -> tuple[str, ...]:
    """What is to be said of the steps in which the generator learns by likelihood."""
    if warm_up >= steps:
        return (
            f"the discriminator teaches the generator in none of the {steps} steps: --warm-up is {warm_up}; "
            "give a lower one to a short run",
        )
    return (
        (f"by likelihood in the first {warm_up} steps, then from the discriminator too",) if warm_up else ()
    )


def _augmentation(policy: str | None, source: Source) -> DiffAugment | None:
    """Raises ValueError, naming the option."""
    if policy is None:
        return None
    if source.kind != "images":
        raise ValueError(f"augment: it changes images, and {source.name} has {source.kind}")
    try:
        return DiffAugment(policy)
    except ValueError as error:
        raise ValueError(str(error).replace("policy", "augment", 1)) from error


def _truncated(fit: GanFit, cut: GanData, source: Source) -> tuple[str, ...]:
    """What a run says of --truncate. Raises ValueError, naming the option, for one that does not fit."""
    if fit.truncate is None:
        return ()
    if source.kind == "images":
        raise ValueError(f"truncate: it is for series and text, and {source.name} has images")
    if fit.truncate > cut.length:
        raise ValueError(
            f"truncate: expected at most {cut.length}, the steps of a window (--length), got {fit.truncate}"
        )
    return (f"of each window the first {fit.truncate} steps are learnt (--truncate)",)


class GanBatches:
    """Rows of a source for ever, in an order of `Shuffled`: {"real", and "labels" or "lengths"}. truncate: so
    many steps of each sequence, its first; None: all."""

    def __init__(self, source: Source, rows: Shuffled, truncate: int | None = None):
        self._source, self._rows, self._truncate = source, rows, truncate

    def __next__(self) -> tuple[dict[str, Tensor], bool]:
        index, begins = next(self._rows)
        batch = self._source.batch(index)
        real, lengths = beginnings(batch["real"], batch.get("lengths"), self._truncate)
        return {**batch, "real": real, **({} if lengths is None else {"lengths": lengths})}, begins

    def state_dict(self) -> dict[str, int]:
        return self._rows.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._rows.load_state_dict(state)
