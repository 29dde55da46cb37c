"""One HTML file that stands alone: no network, no scripts, pictures inside it."""

from __future__ import annotations

import base64
import html
import struct
from collections.abc import Callable, Sequence
from typing import Any

from ... import drawing
from ..units import Coloured

Cell = str | tuple[str, ...]

_NUMBER = 4  # letters of a first column that is a number's
_SHARP = 200  # pixels an inch: twice what a page shows, for screens that have them
_ACROSS = 1.3  # times a picture's own width, where there is room

_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 44rem; padding: 1rem; color: #1a1a1a; background: #fff;
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0 1rem; }
h2 { font-size: 1.2rem; line-height: 1.3; margin: 2.5rem 0 .5rem; padding-top: .75rem;
  border-top: 1px solid #ccc; }
p { margin: .6rem 0; }
figure { margin: 1.2rem 0 1.8rem; }
img { display: block; max-width: 100%; height: auto; }
figcaption { margin-top: .5rem; }
dl.facts { display: grid; grid-template-columns: fit-content(50%) 1fr; gap: .15rem 1rem; margin: 1rem 0; }
dl.facts dt { color: #555; }
dl.facts dd { margin: 0; }
.here { border-left: .25rem solid #0072b2; padding-left: .75rem; }
ul.judge { margin: .4rem 0; padding-left: 1.2rem; }
.coloured { font-size: .85rem; line-height: 1.6; border: 1px solid #ccc; padding: .5rem .6rem; }
.key span { padding: .1rem .5rem; margin-right: .4rem; border: 1px solid #ccc; color: #000; }
table { border-collapse: collapse; table-layout: fixed; width: 100%; font-size: .92rem; }
table.numbered th:first-child { width: 3.5rem; }
th, td { text-align: left; vertical-align: top; padding: .25rem .5rem .25rem 0;
  border-bottom: 1px solid #ddd; }
code { font-family: monospace; background: #f2f2f2; padding: 0 .2em; white-space: pre-wrap; }
td code { margin-right: .35em; }
footer { margin-top: 3rem; color: #555; font-size: .9rem; border-top: 1px solid #ccc; padding-top: .75rem; }
"""

# Nothing may be fetched, whatever a text of the run holds.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


class Page:
    """What is shown, from top to bottom. All text given is plain; the page escapes it."""

    def __init__(self, title: str) -> None:
        self.title, self.pictures = title, 0
        self.begins: Callable[[str], None] = lambda title: None  # told of each section that is begun
        self._parts = [f"<h1>{_text(title)}</h1>"]

    def facts(self, facts: Sequence[tuple[str, str]]) -> None:
        """Names and what they are, one below another."""
        rows = "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in facts)
        self._parts.append(f'<dl class="facts">{rows}</dl>')

    def section(self, title: str, *paragraphs: str) -> None:
        self.begins(title)
        self._parts.append(f"<h2>{_text(title)}</h2>")
        for paragraph in paragraphs:
            self.say(paragraph)

    def say(self, paragraph: str) -> None:
        self._parts.append(f"<p>{_text(paragraph)}</p>")

    def picture(self, figure: Any, *, alt: str, shows: str, good: str, bad: str, here: str = "") -> None:
        """A figure of ``fusegen.drawing``. alt: what a reader who cannot see it would be told. shows: what it
        shows; good, bad: how it would look of a run that went well, or did not; here: what this one says."""
        content = drawing.png(figure, _SHARP)
        width, height = struct.unpack(">II", content[16:24])  # of the header that every PNG begins with
        wide = round(width / _SHARP * drawing.DPI * _ACROSS)
        code = base64.b64encode(content).decode("ascii")
        image = (
            f'<img src="data:image/png;base64,{code}" width="{wide}" height="{round(height * wide / width)}" '
            f'alt="{html.escape(alt)}">'
        )
        self.pictures += 1
        self._figure(image, shows, good, bad, here)

    def coloured(
        self,
        text: Coloured,
        *,
        key: Sequence[tuple[str, str]],
        shows: str,
        good: str,
        bad: str,
        here: str = "",
    ) -> None:
        """A coloured text, itself a picture of HTML. key: colours and what they stand for."""
        named = "".join(f'<span style="background:{c}">{_text(name)}</span>' for c, name in key)
        self._figure(f'<p class="key">{named}</p>{text.html}', shows, good, bad, here)

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        """Cells of plain text; texts in a tuple are shown as code, one by one, with what spaces they have."""
        top = "".join(f"<th>{_text(each)}</th>" for each in headings)
        body = "".join(f"<tr>{''.join(f'<td>{_cell(each)}</td>' for each in row)}</tr>" for row in rows)
        numbered = all(isinstance(row[0], str) and len(row[0]) <= _NUMBER for row in rows)
        kind = ' class="numbered"' if numbered and len(headings) > 1 else ""
        self._parts.append(f"<table{kind}><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>")

    def end(self, said: str) -> None:
        self._parts.append(f"<footer>{_text(said)}</footer>")

    def _figure(self, content: str, shows: str, good: str, bad: str, here: str) -> None:
        found = f'<p class="here"><strong>Here:</strong> {_text(here)}</p>' if here else ""
        self._parts.append(
            f"<figure>{content}<figcaption><p>{_text(shows)}</p>{found}"
            f'<ul class="judge"><li><strong>Good:</strong> {_text(good)}</li>'
            f"<li><strong>Bad:</strong> {_text(bad)}</li></ul></figcaption></figure>"
        )

    @property
    def html(self) -> str:
        """The whole file."""
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{_text(self.title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
            + "\n".join(self._parts)
            + "\n</main>\n</body>\n</html>\n"
        )


def _text(text: str) -> str:
    return html.escape(text, quote=False)


def _cell(cell: Cell) -> str:
    if isinstance(cell, str):
        return _text(cell)
    return " ".join(f"<code>{_text(each)}</code>" for each in cell)
