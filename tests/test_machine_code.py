"""tools/check_spills.py tells loops that keep their vectors in registers from loops that do not."""

import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
try:
    import check_spills
finally:
    sys.path.remove(str(ROOT / "tools"))

X86, ARM = check_spills.MACHINES
CROSS = "aarch64-linux-gnu-"
needs_compiler = pytest.mark.skipif(
    not (platform.machine() in X86.names and shutil.which("g++") and shutil.which("objdump")),
    reason="needs g++ and objdump on x86-64",
)
needs_cross_compiler = pytest.mark.skipif(
    not (shutil.which(f"{CROSS}g++") and shutil.which(ARM.objdump)),
    reason=f"needs {CROSS}g++ and {ARM.objdump}",
)


def function(text, machine=X86):
    """Of a listing as objdump's, a line an instruction; `name:` is a label, and `name` alone an operand."""
    lines = [line.strip() for line in text.strip().splitlines()]
    labels, code = {}, []
    for line in lines:
        if line.endswith(":"):
            labels[line[:-1]] = f"{4 * len(code) + 0x1000:x}"
        else:
            code.append(line)
    texts = [re.sub(r"(?<= )[a-z]+$", lambda m: labels.get(m[0], m[0]), line) for line in code]
    numbered = [f"  {4 * i + 0x1000:x}:\t{text}" for i, text in enumerate(texts)]
    return check_spills.Function("_ZN7fusegen4avx29tile_rowsIfEEvv", "avx2", numbered, machine)


def loops(text, machine=X86):
    held = function(text, machine)
    kernel = check_spills.Kernel("tile_rows")
    return list(check_spills.loops_of(held, "tile_rows<float>", [kernel], check_spills.Graph(held, {})))


FMA = "vfmadd231ps (%rax),%ymm1,%ymm2\n"
SPILL = "vmovaps %ymm0,-0x20(%rsp)\n"

# A listing, and of each of its loops the instructions and the stores of vectors.
LISTINGS = {
    "one block": (f"top:\n {FMA} {SPILL} jne top\n ret", [(3, 1)]),
    "a store beside the loop": (f"{SPILL} top:\n {FMA} jne top\n {SPILL} ret", [(2, 0)]),
    "no multiply-add": (f"top:\n {SPILL} jne top\n ret", []),
    "two blocks": (f"top:\n {FMA} je skip\n {SPILL} skip:\n dec %ecx\n jne top\n ret", [(5, 1)]),
    "tested at the top": (f"top:\n cmp %rcx,%rdx\n je out\n {FMA} {SPILL} jmp top\n out:\n ret", [(5, 1)]),
    "entered in the middle": (f"jmp middle\n top:\n {SPILL} middle:\n {FMA} jne top\n ret", [(3, 1)]),
    "entered at two places": (f"je middle\n top:\n {SPILL} middle:\n {FMA} jne top\n ret", [(3, 1)]),
    "the inner of two": (f"outer:\n {SPILL} top:\n {FMA} jne top\n {SPILL} jne outer\n ret", [(2, 0)]),
    "around a loop without": (f"top:\n {FMA} move:\n dec %ecx\n jne move\n {SPILL} jne top\n ret", [(5, 1)]),
    "two beside each other": (f"a:\n {FMA} jne a\n b:\n {FMA} {SPILL} jne b\n ret", [(2, 0), (3, 1)]),
    "beginning where the outer does": (f"top:\n {FMA} jne top\n {SPILL} jmp top", [(2, 0)]),
    "beginning where another way does": (f"top:\n {FMA} jne top\n {FMA} {SPILL} jmp top", [(2, 0), (3, 1)]),
    "two ways back": (f"top:\n {FMA} je odd\n {SPILL} jmp top\n odd:\n dec %ecx\n jmp top", [(4, 0), (4, 1)]),
    "through a table": (f"top:\n {FMA} jmp *%rdx\n dec %ecx\n jmp top\n {SPILL} jmp top", [(4, 0), (4, 1)]),
}


ARM_FMA = "fmla v1.4s, v2.4s, v3.s[0]\n"
ARM_SPILL = "str q0, [sp, #32]\n"
ARM_LISTINGS = {
    "one block": (f"top:\n {ARM_FMA} {ARM_SPILL} b.ne top\n ret", [(3, 1)]),
    "a store beside the loop": (
        f"{ARM_SPILL} top:\n {ARM_FMA} cbnz x0, top\n {ARM_SPILL} ret",
        [(2, 0)],
    ),
    "no multiply-add": (f"top:\n fmadd s1, s2, s3, s1\n {ARM_SPILL} b.ne top\n ret", []),
    "two blocks": (
        f"top:\n {ARM_FMA} cbz w0, skip\n {ARM_SPILL} skip:\n sub w1, w1, #0x1\n cbnz w1, top\n ret",
        [(5, 1)],
    ),
    "on a bit": (
        f"top:\n {ARM_FMA} tbz w0, #3, skip\n {ARM_SPILL} skip:\n sub w1, w1, #0x1\n tbnz w1, #0, top\n ret",
        [(5, 1)],
    ),
    "tested at the top": (
        f"top:\n cmp x0, x1\n b.le out\n {ARM_FMA} {ARM_SPILL} b top\n out:\n ret",
        [(5, 1)],
    ),
    "through a table": (
        f"top:\n {ARM_FMA} br x2\n sub w1, w1, #0x1\n b top\n {ARM_SPILL} b top",
        [(4, 0), (4, 1)],
    ),
}


@pytest.mark.parametrize(
    "machine, listing",
    [
        *(pytest.param(X86, listing, id=name) for name, listing in LISTINGS.items()),
        *(pytest.param(ARM, listing, id=f"ARM: {name}") for name, listing in ARM_LISTINGS.items()),
    ],
)
def test_inner_loops_are_found(machine, listing):
    text, expected = listing
    assert sorted((loop.size, loop.counts["vector stores"]) for loop in loops(text, machine)) == expected


def test_a_loop_through_the_cold_part_of_a_function_is_whole():
    hot = function(f"top:\n {FMA} je 2000\n dec %ecx\n jne top\n ret")
    part = function("vmovaps %ymm0,-0x20(%rsp)\n jmp top")
    part.lines = [f"  2000:\t{SPILL.strip()}", "  2008:\tjmp    1008"]
    graph = check_spills.Graph(hot, {i.address: part for i in part.code})
    (loop,) = check_spills.loops_of(hot, "tile_rows<float>", [check_spills.Kernel("tile_rows")], graph)
    assert (loop.size, loop.counts["vector stores"]) == (6, 1)


STORE, RELOAD = {"vector stores": 1}, {"vector reloads": 1}
# An instruction, what comes before the loop, and what it counts as.
INSTRUCTIONS = [
    ("vmovaps %ymm0,0x20(%rsp)", "", STORE),
    ("movups %xmm0,(%rsp,%rcx,4)", "", STORE),
    ("vmovdqu64 %zmm0,-0x40(%rsp)", "", STORE),
    ("vmovdqa %ymm0,0x20(%rsp)", "", STORE),
    ("movdqa %xmm0,0x20(%rsp)", "", STORE),
    ("movss %xmm0,0xc(%rsp)", "", STORE),
    ("vmovaps %ymm0,0x20(%rsp){%k1}", "", STORE),
    ("vmovaps %ymm0,-0x40(%rbp)", "mov %rsp,%rbp", STORE),
    ("vmovaps %ymm0,-0x40(%rbp)", "mov %rdi,%rbp", {}),
    ("vmovaps %ymm0,-0x40(%rbp)", "mov %rsp,%rbp\n mov %rdi,%rbp", {}),
    ("vmovaps %ymm0,(%rdx,%rcx,1)", "lea 0x40(%rsp),%rdx\n add $0x20,%rdx", STORE),
    ("vmovaps %ymm0,(%rdx,%rcx,1)", "lea 0x40(%rsp),%rdx\n call 5000", {}),
    ("vmovaps %ymm0,(%rdx)", "lea 0x40(%rsp),%rdx\n lea 0x20(%rip),%rdx        # 4030 <table>", {}),
    ("vmovaps %ymm0,(%rdi)", "", {}),
    ("vmovaps 0x20(%rsp),%ymm0", "", RELOAD),
    ("vaddps 0x20(%rsp),%ymm1,%ymm0", "", RELOAD),
    ("vbroadcastss 0x20(%rsp),%ymm0", "", RELOAD),
    ("vfmadd213ps 0x20(%rsp),%ymm1,%ymm0", "", RELOAD | {"multiply-adds": 2}),
    ("vdpbf16ps %zmm0,%zmm1,%zmm2", "", {"multiply-adds": 2}),
    ("mulps %xmm0,%xmm1\n addps %xmm1,%xmm2\n mulps %xmm0,%xmm3", "", {"multiply-adds": 2}),
    ("vpdpbusd %zmm0,%zmm1,%zmm2", "", {"multiply-adds": 2}),
    ("vpmaddwd %ymm0,%ymm1,%ymm3\n vpaddd %ymm3,%ymm2,%ymm2", "", {"multiply-adds": 2}),
    ("mov %rdx,0x8(%rsp)", "", {"integer stores": 1}),
    ("kmovw %k1,0x8(%rsp)", "", {"integer stores": 1}),
    ("push %rdx", "", {"integer stores": 1}),
    ("addq $0x1,0x8(%rsp)", "", {"integer stores": 1, "integer reloads": 1}),
    ("lock incl 0x8(%rsp)", "", {"integer stores": 1, "integer reloads": 1}),
    ("cmp %rdx,0x8(%rsp)", "", {"integer reloads": 1}),
    ("mov 0x8(%rsp),%rdx", "", {"integer reloads": 1}),
    ("lea 0x8(%rsp),%rdx", "", {}),
    ("prefetcht0 0x8(%rsp)", "", {}),
    ("nopl 0x0(%rsp)", "", {}),
    ("data16 cs nopw 0x0(%rsp,%rax,1)", "", {}),
    ("call 5000", "", {"calls": 1}),
]


ARM_INSTRUCTIONS = [
    ("str q0, [sp, #32]", "", STORE),
    ("str q0, [sp], #32", "", STORE),
    ("stp q0, q1, [sp, #32]", "", STORE),
    ("st1 {v0.4s, v1.4s}, [sp]", "", STORE),
    ("str s0, [sp, #8]", "", STORE),
    ("stur q0, [x29, #-16]", "mov x29, sp", STORE),
    ("stur q0, [x29, #-16]", "mov x29, x3", {}),
    ("stur q0, [x29, #-16]", "mov x29, sp\n mov x29, x3", {}),
    ("str q0, [x2, x1]", "add x2, sp, #0x40\n add x2, x2, #0x10", STORE),
    ("str q0, [x2, x1]", "add x2, sp, #0x40\n str x2, [x3]\n cmp x2, x4", STORE),
    ("str q0, [x2]", "add x2, sp, #0x40\n ldr x2, [x3]", {}),
    ("str q0, [x3]", "add x3, sp, #0x40\n ldp x2, x3, [x4]", {}),
    ("str q0, [x2]", "add x2, sp, #0x40\n bl 5000", {}),
    ("str q0, [x20]", "add x20, sp, #0x40\n bl 5000", STORE),
    ("str q0, [x0]", "", {}),
    ("ldr q0, [sp, #32]", "", RELOAD),
    ("ldp q0, q1, [sp, #32]", "", RELOAD),
    ("ld1r {v0.4s}, [x2]", "mov x2, sp", RELOAD),
    ("fmla v1.2d, v2.2d, v3.d[0]", "", {"multiply-adds": 2}),
    ("fmul v0.4s, v1.4s, v2.4s\n fadd v3.4s, v3.4s, v0.4s", "", {"multiply-adds": 2}),
    ("smull v0.8h, v1.8b, v2.8b\n sadalp v3.4s, v0.8h", "", {"multiply-adds": 2}),
    ("fmul s0, s1, s2\n fadd s3, s3, s0", "", {}),
    ("str x2, [sp, #8]", "", {"integer stores": 1}),
    ("stp x2, x3, [sp, #8]", "", {"integer stores": 1}),
    ("ldrsw x2, [sp, #8]", "", {"integer reloads": 1}),
    ("add x2, sp, #0x8", "", {}),
    ("prfm pldl1keep, [sp, #8]", "", {}),
    ("nop", "", {}),
    ("bl 5000", "", {"calls": 1}),
    ("blr x2", "", {"calls": 1}),
]


@pytest.mark.parametrize(
    "machine, text, before, expected",
    [*((X86, *case) for case in INSTRUCTIONS), *((ARM, *case) for case in ARM_INSTRUCTIONS)],
    ids=lambda value: value if value and isinstance(value, str) else "-",
)
def test_an_instruction_counts_as_what_it_does(machine, text, before, expected):
    top = f"{FMA if machine is X86 else ARM_FMA} {text}\n {'jne' if machine is X86 else 'b.ne'} top\n ret"
    (loop,) = loops(f"{before}\n top:\n {top}".lstrip("\n"), machine)
    counts = {column: loop.counts[column] for column in check_spills.COLUMNS if loop.counts[column]}
    assert counts == {"multiply-adds": 1} | expected
    assert loop.offends == bool(expected.keys() & {"vector stores", "calls"})


def test_of_a_caller_only_the_sums_are_read():
    partial = "call 5000 <_ZN7fusegen4avx29load_someIfEEvPKfi>\n"
    held = function(f"a:\n {FMA} {partial} jne a\n b:\n {FMA} jne b\n c:\n {FMA * 8} jne c\n ret")
    caller = "SmallStepBackward<float, (Cell)2>::run"
    kernels = [k for k in check_spills.KERNELS if k.name in ("row_sums", "outer")]
    found = check_spills.loops_of(held, caller, kernels, check_spills.Graph(held, {}))
    assert [(loop.kernel, loop.counts["multiply-adds"]) for loop in found] == [("outer", 1), ("row_sums", 8)]


# A module with the kernels; -D plants something in the loop of tile_rows.
SOURCE = """
#ifdef __aarch64__
#define SET baseline
#define BYTES 16
#else
#define SET avx2
#define BYTES 32
#endif
typedef float V __attribute__((vector_size(BYTES)));
extern "C" void elsewhere();

namespace fusegen::SET {

#define KERNEL(name, sums, counters, extra)                               \\
  template <class C, int M>                                               \\
  __attribute__((noinline)) void name(const C* a, const V* w, long K, V* out) { \\
    V sum[M] = {};                                                        \\
    long counter[counters] = {};                                          \\
    for (long k = 0; k < K; ++k, a += M, ++w) {                           \\
      _Pragma("GCC unroll 40") for (int m = 0; m < M; ++m) sum[m] += (a[m] - V{}) * *w; \\
      _Pragma("GCC unroll 40") for (long& c : counter) asm volatile("" : "+r"(c)); \\
      extra;                                                              \\
    }                                                                     \\
    _Pragma("GCC unroll 40") for (int m = 0; m < M; ++m) out[m] = sum[m]; \\
  }                                                                       \\
  template void name<float, sums>(const float*, const V*, long, V*);

#ifndef SUMS
#define SUMS 12
#endif
#ifndef COUNTERS
#define COUNTERS 1
#endif
#ifndef EXTRA
#define EXTRA
#endif
KERNEL(tile_rows, SUMS, COUNTERS, EXTRA)
KERNEL(tile_columns, 4, 1, )
KERNEL(tile_segments, 4, 1, )
KERNEL(int8_tile, 4, 1, )
KERNEL(weight_only_tile, 4, 1, )
KERNEL(dot_rows, 8, 1, )
KERNEL(row_sums, 8, 1, )
KERNEL(outer, 1, 1, )

}  // namespace fusegen::SET
"""


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A function: builds SOURCE with these options into a module and returns its path."""

    def build(*options, arm=False):
        folder = tmp_path_factory.mktemp("planted")
        (folder / "kernels.cpp").write_text(SOURCE)
        flags = ["-std=c++20", "-O2", "-shared", "-fPIC", "-fvisibility=hidden"]
        flags += ["-fno-schedule-insns"] if arm else ["-mavx2", "-mfma"]
        command = [f"{CROSS * arm}g++", *flags, *options, "kernels.cpp", "-o", "kernels.so"]
        subprocess.run(command, cwd=folder, check=True)
        return str(folder / "kernels.so")

    return build


SPILLS = {"multiply-adds", "vector stores", "vector reloads"}
# Options, the exit status, and the columns of tile_rows' loop that are not zero.
PLANTED = {
    "12 sums": ((), 0, {"multiply-adds"}),
    "17 sums": (("-DSUMS=17",), 1, SPILLS),
    "17 sums, frame pointer": (("-DSUMS=17", "-fno-omit-frame-pointer"), 1, SPILLS),
    "12 sums, frame pointer": (("-fno-omit-frame-pointer",), 0, {"multiply-adds"}),
    "16 counters": (("-DCOUNTERS=16",), 0, {"multiply-adds", "integer stores", "integer reloads"}),
    "a call": (("-DSUMS=1", "-DEXTRA=elsewhere()"), 1, None),
}
ARM_PLANTED = {
    "24 sums": (("-DSUMS=24",), 0, {"multiply-adds"}),
    "33 sums": (("-DSUMS=33",), 1, SPILLS),
    "33 sums, frame pointer": (("-DSUMS=33", "-fno-omit-frame-pointer"), 1, SPILLS),
    "32 counters": (("-DCOUNTERS=32",), 0, {"multiply-adds", "integer stores", "integer reloads"}),
    "a call": (("-DSUMS=1", "-DEXTRA=elsewhere()"), 1, None),
}


@pytest.mark.parametrize(
    "arm, case",
    [
        *(pytest.param(False, case, marks=needs_compiler, id=name) for name, case in PLANTED.items()),
        *(
            pytest.param(True, case, marks=needs_cross_compiler, id=f"ARM: {name}")
            for name, case in ARM_PLANTED.items()
        ),
    ],
)
def test_what_is_planted_in_a_kernel_is_found(planted, capsys, arm, case):
    options, status, columns = case
    path = planted(*options, arm=arm)
    found, missing = check_spills.read_loops(path)
    (loop,) = (loop for loop in found if loop.kernel == "tile_rows")
    assert not missing and not any(other.offends for other in found if other is not loop)
    assert (
        loop.offends == bool(status)
        and loop.isa == ("baseline" if arm else "avx2")
        and "tile_rows<float, " in loop.place
    )
    if columns is None:
        assert loop.counts["calls"] == 1
    else:
        assert {column for column in check_spills.COLUMNS if loop.counts[column]} == columns
    assert check_spills.main([path]) == status
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == (3 if status else 1) and (not status or loop.place in shown[1])
    assert check_spills.main([path, "--list"]) == status
    assert len(capsys.readouterr().out.splitlines()) == len(found) + 2


@needs_compiler
def test_a_kernel_that_is_not_there_is_an_error(planted, capsys):
    assert check_spills.main([planted("-Dtile_columns=renamed")]) == 1
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("avx2: no loop of tile_columns found") and last.endswith("1 kernels not found")


@needs_compiler
def test_a_file_that_cannot_be_read_is_one_line(planted, tmp_path):
    text, stripped = tmp_path / "text.so", planted("-s")
    text.write_text("no module")
    for path, message in (
        (str(tmp_path / "absent.so"), "No such file"),
        (str(text), "not recognized"),
        (stripped, "stripped"),
    ):
        with pytest.raises(SystemExit) as error:
            check_spills.main([path])
        assert re.fullmatch(rf"check_spills: .*{message}.*", error.value.code)


@pytest.mark.slow
def test_every_kernel_is_found_in_the_module_that_was_built():
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    built = [*ROOT.glob(f"build/{tag}-*/_C{sysconfig.get_config_var('EXT_SUFFIX')}")]
    if not built:
        pytest.skip(f"no module with its symbols in {ROOT / 'build'}: `make dev` leaves one there")
    found, missing = check_spills.read_loops(str(built[0]))
    assert not missing and "baseline" in {loop.isa for loop in found}
