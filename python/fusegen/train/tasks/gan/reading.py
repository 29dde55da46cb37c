"""Which data a GAN learns, by the options of its task or by what a run keeps of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ....data.files import sound, tables
from .characters import Characters
from .options import GanData, is_text
from .pictures import Pictures
from .series import READERS, Sequences
from .source import Source

_IMAGES = "digits", "photos"
_TABLE = ("delimiter", "decimal", "header")  # options of tables
_SOURCES = {each.kind: each for each in (Pictures, Sequences, Characters)}


def name_of(arch: str, options: GanData) -> str:
    """The data that the options name, or the arch's own."""
    return options.data if options.data is not None else ("prices" if arch == "recurrent" else "digits")


def kind_of(arch: str, options: GanData) -> str:
    """What they are: images, series or text."""
    if arch != "recurrent":
        return Pictures.kind
    name = name_of(arch, options)
    return (Characters if is_text(name) else Sequences).kind


def read_source(arch: str, options: GanData, argument: str, folder: Path | None) -> Source:
    """The data that the options name. Raises OSError, ValueError or ModuleNotFoundError, naming `argument`
    or the option."""
    name = name_of(arch, options)
    suffix = Path(name).suffix.lower()
    is_table = name.lower().endswith(tables.SUFFIXES)
    ordered = name in READERS or is_text(name) or suffix in sound.SUFFIXES or is_table
    if arch == "recurrent" and name in _IMAGES:
        raise ValueError(f"{argument}: {name} are images, and recurrent networks take series or text")
    if arch != "recurrent" and ordered:
        raise ValueError(
            f"{argument}: {name} has sequences, which --arch recurrent takes; {arch} takes images"
        )
    for option in _TABLE:
        if getattr(options, option) is not None and not is_table:
            raise ValueError(
                f"{option}: expected a table ({', '.join(tables.SUFFIXES)}) to read with it, got {name}"
            )
    if arch != "recurrent":
        return Pictures.read(name, options, argument)
    if is_text(name):
        return Characters.read(name, options, argument, folder)
    return Sequences.read(name, options, argument, folder)


def revived(folder: Path, content: Mapping[str, Any]) -> Source:
    """What a run's folder keeps of its data. Raises ValueError where it is not what `Source.keep` writes."""
    try:
        return _SOURCES[content["kind"]].revive(content, folder)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder / 'data.json'} does not describe data: {error}") from error
