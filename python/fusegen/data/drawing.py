"""Samples as pictures: grids of images, plots of sequences, PNG files."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._arguments import whole
from ._optional import needed

_PLOT = (120, 80)  # pixels of one sequence's plot
# Okabe and Ito's colours, which the colour-blind tell apart.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def grid(samples: Tensor, columns: int = 8) -> Tensor:
    """Samples [N, C, H, W] in [-1, 1] as one picture uint8 [C, rows * H, columns * W], row by row; values
    beyond are cut, places left over are black."""
    if samples.dim() != 4:
        raise ValueError(f"samples: expected shape [N, C, H, W], got {list(samples.shape)}")
    n, C, H, W = samples.shape
    columns = min(whole("columns", columns, 1), max(n, 1))
    rows = -(-n // columns)
    pixels = ((samples.detach().float().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    pixels = torch.cat((pixels, pixels.new_zeros(rows * columns - n, C, H, W)))
    return pixels.view(rows, columns, C, H, W).permute(2, 0, 3, 1, 4).reshape(C, rows * H, columns * W)


def curves(sequences: Tensor, lengths: Tensor | None = None, columns: int = 4) -> Tensor:
    """Sequences [T, N, F] in [-1, 1] as one picture uint8 [3, H, W] of a small plot each, row by row: a line
    for each feature, -1 at the bottom; what lies past ``lengths`` [N] is not drawn. Needs pillow."""
    if sequences.dim() != 3 or 0 in sequences.shape:
        raise ValueError(f"sequences: expected shape [T, N, F], got {list(sequences.shape)}")
    image, draw = (needed(f"PIL.{name}", "pillow") for name in ("Image", "ImageDraw"))
    T, n, F = sequences.shape
    columns = min(whole("columns", columns, 1), n)
    width, height = _PLOT
    picture = image.new("RGB", (columns * width, -(-n // columns) * height), "white")
    pen = draw.Draw(picture)
    y = (1 - sequences.detach().float().cpu().clamp(-1, 1)) / 2 * (height - 9) + 4
    x = torch.linspace(4, width - 5, T) if T > 1 else torch.tensor([width / 2])
    for i in range(n):
        left, top = i % columns * width, i // columns * height
        pen.rectangle((left, top, left + width - 1, top + height - 1), outline=(210, 210, 210))
        end = T if lengths is None else int(lengths[i])
        for feature in range(F):
            points = [(left + x[t].item(), top + y[t, i, feature].item()) for t in range(end)]
            pen.line(points if end > 1 else points * 2, fill=_COLOURS[feature % len(_COLOURS)])
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def png(picture: Tensor) -> bytes:
    """A picture uint8 [C, H, W] of 1 or 3 channels as the content of a PNG file."""
    content = io.BytesIO()
    _as_image(picture).save(content, "PNG", optimize=True)
    return content.getvalue()


def save_grid(path: str | os.PathLike[str], samples: Tensor, columns: int = 8) -> None:
    """Writes ``grid(samples, columns)`` as an image file, the folder made where missing; its kind by the
    name's ending. The file is complete or not there."""
    picture = _as_image(grid(samples, columns))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}.part{path.suffix}")
    picture.save(unfinished)
    unfinished.replace(path)


def _as_image(picture: Tensor) -> Any:
    image = needed("PIL.Image", "pillow")
    array = picture[0].numpy() if picture.shape[0] == 1 else picture.permute(1, 2, 0).numpy()
    return image.fromarray(np.ascontiguousarray(array))
