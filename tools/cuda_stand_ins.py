"""Stand-ins for the CUDA libraries that a CUDA build of torch needs: cuda_stand_ins.py TORCH_LIB FOLDER.

torch's wheel of most releases exists, for x86-64, as a CUDA build alone wherever no index of CPU builds is at
hand, and cannot be imported without gigabytes of libraries that a test on the CPU never calls. With the
libraries written to FOLDER on LD_LIBRARY_PATH it can: each of their functions says that there is no GPU.
Needs gcc and objdump. For tests alone.
"""

import re
import subprocess
import sys
from pathlib import Path

NEEDED = re.compile(r"^ +NEEDED +(\S+)", re.M)
REQUIRED = re.compile(r"^  required from (\S+):\n((?:    0x.*\n)+)", re.M)  # a library, and its versions
UNDEFINED = re.compile(r"\*UND\*\t\S+\s+(?:\(?(\S+?)\)?\s+)?(\S+)$", re.M)
# Of what these libraries export without a version, the library by the beginning of the name.
UNVERSIONED = {
    "cusparseLt": "libcusparseLt",
    "nccl": "libnccl",
    "nvshmem": "libnvshmem_host",
    "cuFile": "libcufile",
}
NO_DEVICE = 100  # cudaErrorNoDevice


def objdump(option: str, library: Path) -> str:
    return subprocess.run(["objdump", option, library], capture_output=True, text=True, check=True).stdout


def on_this_system() -> set[str]:
    listed = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"^\t(\S+) \(", listed, re.M))


def stand_in_for(torch_lib: Path, folder: Path) -> list[str]:
    """Writes a library for each that those in ``torch_lib`` need and nobody has; their names."""
    libraries = [path for path in torch_lib.iterdir() if ".so" in path.name]
    needed = {name for path in libraries for name in NEEDED.findall(objdump("-p", path))}
    missing = sorted(needed - {path.name for path in libraries} - on_this_system())
    versions: dict[str, set[str]] = {name: set() for name in missing}
    for path in libraries:
        for name, lines in REQUIRED.findall(objdump("-p", path)):
            if name in versions:
                versions[name].update(line.split()[-1] for line in lines.splitlines())
    undefined = {found for path in libraries for found in UNDEFINED.findall(objdump("-T", path))}
    folder.mkdir(parents=True, exist_ok=True)
    for name in missing:
        beginnings = tuple(b for b, library in UNVERSIONED.items() if name.startswith(library))
        symbols = {
            s for v, s in undefined if v in versions[name] or (beginnings and s.startswith(beginnings))
        }
        code = "".join(f"long {s}(void) {{ return {NO_DEVICE}; }}\n" for s in sorted(symbols))
        script = folder / "versions"
        # All symbols in the first version; the others are there.
        nodes = sorted(versions[name]) or [name]
        script.write_text(f"{nodes[0]} {{ global: *; }};\n" + "".join(f"{n} {{}};\n" for n in nodes[1:]))
        command = ["gcc", "-shared", "-fPIC", "-w", "-fno-builtin", f"-Wl,-soname,{name}", "-x", "c", "-"]
        command += [f"-Wl,--version-script={script}", "-o", str(folder / name)]
        subprocess.run(command, input=code, text=True, check=True)
        script.unlink()
    return missing


if __name__ == "__main__":
    print("stand-ins:", *stand_in_for(Path(sys.argv[1]), Path(sys.argv[2])))
