"""The measured tables and pictures from result files: `python benchmarks/report.py [--write] [FILE...]`.

Prints the tables; with --write the pages are written, and pictures drawn. With FILEs, which may be of quick
or stopped runs, it prints the tables of these alone, and --picture PNG draws their layers.

Each platform that was measured (results/MACHINE/ISA, and the number of threads) is shown, the one on which
fusegen does worst beside torch.nn first; for each suite its newest complete file is read. README.md has the
worst one's picture and says how often fusegen lost on each (between the markers bench:start and bench:end);
docs/benchmarks.md has every table. Pictures go to results/MACHINE/ISA/layers.png. GPUs' tables, from the
newest run or its parts, go to docs/benchmarks.md, between gpu-bench:start and gpu-bench:end.

Exit status: 0 done; 1 --check found a page that says something else; 2 there are no results.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from harness import machine, record
from harness.bars import select
from pages import cpu, gpu, picture
from pages.cpu import LEGEND
from pages.markdown import joined
from pages.measured import PEERS, Platform, compared, gpu_folders, platforms, platforms_of

BENCH, GPU = "bench", "gpu-bench"
BENCHMARKS = "docs/benchmarks.md"


def injected(page: str, text: str, marker: str, name: str = "page") -> str:
    """`page` with `text` between its markers MARKER:start and MARKER:end. Raises ValueError unless both are
    there, once, in order."""
    start, end = f"<!-- {marker}:start -->", f"<!-- {marker}:end -->"
    if page.count(start) != 1 or page.count(end) != 1 or page.index(start) > page.index(end):
        raise ValueError(f"{name}: expected {start} and then {end}, once each")
    before, rest = page.split(start)
    return f"{before}{start}\n{text}\n{end}{rest.split(end)[1]}"


def picture_of(platform: Platform) -> Path | None:
    """Where the picture of its layers lies; None without any layers."""
    name = "layers.png" if platform.threads != "1" else "layers-1-thread.png"
    return platform.folder / name if select(platform.rows, suite="rnn") else None


def gpu_texts() -> list[str]:
    page = machine.ROOT / BENCHMARKS
    return [text for folder in gpu_folders(record.RESULTS) if (text := gpu.markdown(folder, page))]


def pages(found: list[Platform], gpus: list[str]) -> dict[Path, str]:
    """README.md and docs/benchmarks.md as they should be; what is no measured part stays as it is."""
    readme, page = machine.ROOT / "README.md", machine.ROOT / BENCHMARKS
    drawn = [path if (path := picture_of(platform)) and path.exists() else None for platform in found]
    front, whole = readme.read_text(), page.read_text()
    if gpus:
        whole = injected(whole, "\n\n".join(gpus), GPU, page.name)
    if found:
        front = injected(front, cpu.front(found, drawn[0], readme), BENCH, readme.name)
        details = [[cpu.details(one, path, page)] for one, path in zip(found, drawn, strict=True)]
        whole = injected(whole, joined([*cpu.overview(found), *details]), BENCH, page.name)
    return {readme: front, page: whole}


def show_files(files: list[Path], drawn: Path | None) -> int:
    """Prints what the files have, one platform after the other, and draws the layers of the first that has
    some. Returns the exit status."""
    try:
        found = platforms_of(files)
    except (OSError, ValueError, KeyError) as error:
        print(f"report.py: cannot read results: {error}", file=sys.stderr)
        return 2
    if not found:
        print("report.py: the files have no suite that the tables show", file=sys.stderr)
        return 2
    print("\n\n".join([LEGEND, *(cpu.details(one, None, Path.cwd() / "page") for one in found)]))
    if drawn is None:
        return 0
    layers = next((one.rows for one in found if picture.drawn_of(one.rows)), None)
    if layers is None:
        print("report.py: --picture: the files have no fp32 layers beside a peer", file=sys.stderr)
        return 2
    picture.draw(layers, compared, PEERS, drawn)
    print(f"\ndrawn: {drawn}")
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="results to show, of any run")
    parser.add_argument("--write", action="store_true", help="write README.md, docs/benchmarks.md, pictures")
    parser.add_argument("--picture", type=Path, metavar="PNG", help="draw the layers of FILE... there")
    parser.add_argument("--no-picture", action="store_true", help="for want of matplotlib: draw none anew")
    parser.add_argument("--show", action="store_true", help="print the GPUs' tables alone")
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 where a page differs")
    asked = parser.parse_args(argv)
    if asked.files and (asked.write or asked.check or asked.show):
        parser.error("FILE: --write, --check and --show are of the newest complete results, not of a FILE")
    if asked.picture and not asked.files:
        parser.error("--picture: expected the FILE to draw")
    if asked.files:
        return show_files(asked.files, asked.picture)
    gpus, found = gpu_texts(), platforms(record.RESULTS)
    if asked.show:
        print("\n\n".join(gpus) or "nothing complete was measured on a GPU")
        return 0 if gpus else 2
    if not found and not gpus:
        folder = record.RESULTS.relative_to(machine.ROOT)
        print(f"no complete results in {folder}: run.py makes them", file=sys.stderr)
        return 2
    if not (asked.write or asked.check):
        print(
            "\n\n".join(
                [LEGEND, *(cpu.details(one, None, machine.ROOT / "README.md") for one in found), *gpus]
            )
        )
        return 0
    if asked.write and not asked.no_picture:
        for platform in found:
            if path := picture_of(platform):
                picture.draw(platform.rows, compared, PEERS, path)
    differ = {path: text for path, text in pages(found, gpus).items() if path.read_text() != text}
    for path, text in differ.items():
        if asked.check:
            print(f"{path.relative_to(machine.ROOT)}: not what report.py writes", file=sys.stderr)
        else:
            path.write_text(text)
    return int(asked.check and bool(differ))


if __name__ == "__main__":
    sys.exit(main())
