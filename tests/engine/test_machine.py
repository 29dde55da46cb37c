"""What the engine reads of the processor: each cache from the first source that tells it plausibly."""

import os
import subprocess
import sys

import pytest
from fusegen import _C, _info
from fusegen.cli import main
from processes import WITH_TESTS

KIB, MIB = 1024, 1024 * 1024
DEFAULT = (32 * KIB, 512 * KIB, 8 * MIB)
# (level, holds data, bytes, logical processors that share it): a core of two threads, an L3 of eight cores
CACHES = [(1, True, 48 * KIB, 2), (1, False, 32 * KIB, 2), (2, True, 2 * MIB, 2), (3, True, 30 * MIB, 16)]


def sizes(m):
    return m["l1d"], m["l2"], m["l3"]


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("vendor", "signature", "expected"),
    [
        ("GenuineIntel", 0x000806F8, ("intel", 6, 143)),  # Sapphire Rapids
        ("GenuineIntel", 0x00050657, ("intel", 6, 85)),  # Cascade Lake
        ("AuthenticAMD", 0x00A00F11, ("amd", 25, 1)),  # Zen 3
        ("AuthenticAMD", 0x00B00F21, ("amd", 26, 2)),  # Zen 5
        ("HygonGenuine", 0x00900F01, ("other", 24, 0)),
        ("", 0, ("other", 0, 0)),
    ],
)
def test_vendor_family_and_model(vendor, signature, expected):
    m = _C.machine_from(vendor, signature)
    assert (m["vendor"], m["family"], m["model"]) == expected


def test_one_source_tells_all():
    for given in ({"cpuid": CACHES}, {"sysfs": CACHES}):
        m = _C.machine_from(**given)
        assert sizes(m) == (48 * KIB, 2 * MIB, 30 * MIB) and m["l3_cores"] == 8
        assert m["source"] == {"cpuid": "CPUID"}.get(*given, "sysfs")


def test_without_readings_the_defaults_hold():
    m = _C.machine_from("GenuineIntel")
    assert sizes(m) == DEFAULT and m["source"] == "default" and m["l3_cores"] == 0


def test_cpuid_comes_first_unless_cores_are_of_several_kinds():
    other = [(1, True, 32 * KIB, 1), (2, True, MIB, 1), (3, True, 16 * MIB, 4)]
    assert sizes(_C.machine_from(cpuid=CACHES, sysfs=other))[0] == 48 * KIB
    m = _C.machine_from(hybrid=True, cpuid=CACHES, sysfs=other)
    assert sizes(m) == (32 * KIB, MIB, 16 * MIB) and m["source"] == "sysfs"
    assert _C.machine_from(hybrid=True, cpuid=CACHES)["source"] == "CPUID"


@pytest.mark.parametrize(
    ("cpuid", "expected", "source"),
    [
        (CACHES[:3], (48 * KIB, 2 * MIB, 8 * MIB), "L1 CPUID, L2 CPUID, L3 default"),
        ([(1, True, 0, 1), *CACHES[2:]], (32 * KIB, 2 * MIB, 30 * MIB), "L1 default, L2 CPUID, L3 CPUID"),
        # instructions alone are no data cache
        (CACHES[1:], (32 * KIB, 2 * MIB, 30 * MIB), "L1 default, L2 CPUID, L3 CPUID"),
        # smaller than the level below
        ([CACHES[0], (2, True, 40 * KIB, 2), CACHES[3]], (48 * KIB, 512 * KIB, 30 * MIB),
         "L1 CPUID, L2 default, L3 CPUID"),
        ([*CACHES[:3], (3, True, MIB, 16)], (48 * KIB, 2 * MIB, 8 * MIB), "L1 CPUID, L2 CPUID, L3 default"),
        # above sane limits
        ([(1, True, 2 * MIB, 2), *CACHES[2:]], (32 * KIB, 2 * MIB, 30 * MIB),
         "L1 default, L2 CPUID, L3 CPUID"),
        ([*CACHES[:3], (3, True, 8192 * MIB, 16)], (48 * KIB, 2 * MIB, 8 * MIB),
         "L1 CPUID, L2 CPUID, L3 default"),
        # a default is never smaller than what was read of the level below
        ([CACHES[0], (2, True, 16 * MIB, 2)], (48 * KIB, 16 * MIB, 16 * MIB),
         "L1 CPUID, L2 CPUID, L3 default"),
    ],
)  # fmt: skip
def test_each_level_by_itself(cpuid, expected, source):
    m = _C.machine_from(cpuid=cpuid)
    assert (sizes(m), m["source"]) == (expected, source)


def test_a_level_hidden_from_cpuid_comes_from_the_system():
    m = _C.machine_from(cpuid=CACHES[:3], sysfs=[(3, True, 16 * MIB, 4)])
    assert sizes(m) == (48 * KIB, 2 * MIB, 16 * MIB) and m["source"] == "L1 CPUID, L2 CPUID, L3 sysfs"


def test_an_l2_that_cores_share_is_dealt_out():
    """Four cores of one thread each."""
    m = _C.machine_from(cpuid=[(1, True, 32 * KIB, 1), (2, True, 4 * MIB, 4), (3, True, 24 * MIB, 16)])
    assert sizes(m) == (32 * KIB, MIB, 24 * MIB)


def test_sizes_of_ones_own():
    m = _C.machine_from("AuthenticAMD", 0x00A00F11, cpuid=CACHES, caches="32,512,32768")
    assert sizes(m) == (32 * KIB, 512 * KIB, 32 * MIB)
    assert (m["source"], m["vendor"], m["l3_cores"]) == ("FUSEGEN_CACHES", "amd", 0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("32", "got '32'"),
        ("32,512", "got '32,512'"),
        ("32,512,", "got '32,512,'"),
        ("32,512,8192,1", "got '32,512,8192,1'"),
        ("32, 512, 8192", "got '32, 512, 8192'"),
        ("-32,512,8192", "got '-32,512,8192'"),
        ("32K,512K,8M", "got '32K,512K,8M'"),
        ("99999999999999999999,512,8192", "got '999"),
        ("0,512,8192", "l1d from 4 to 1024; got '0,512,8192'"),
        ("32,16,8192", "l2 from 32 to 65536; got '32,16,8192'"),
        ("64,32,8192", "l2 no smaller than l1d; got '64,32,8192'"),
        ("32,512,256", "l3 no smaller than l2; got '32,512,256'"),
        ("32,512,99999999", "l3 from 128 to 4194304; got"),
    ],
)
def test_wrong_sizes_are_refused(text, words):
    with pytest.raises(RuntimeError) as raised:
        _C.machine_from(caches=text)
    said = str(raised.value)
    assert said.startswith('FUSEGEN_CACHES: expected "l1d,l2,l3" in KiB, for example 32,512,32768; ')
    assert words in said and "\n" not in said


def test_the_environment_decides():
    code = "import fusegen._C as C; m = C.machine(); print(m['l1d'], m['l2'], m['l3'], m['source'])"
    done = run("import fusegen; " + code, FUSEGEN_CACHES="64,1024,16384")
    assert done.stdout.split() == ["65536", "1048576", "16777216", "FUSEGEN_CACHES"], done.stderr


def test_this_machine_has_plausible_caches():
    m = _C.machine()
    assert 4 * KIB <= m["l1d"] <= m["l2"] <= m["l3"]
    assert m["vendor"] in ("intel", "amd", "other") and m["source"]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("FUSEGEN_ISA", "foo", "FUSEGEN_ISA: expected one of: {isas}; got 'foo'"),
        ("FUSEGEN_CACHES", "foo",
         "FUSEGEN_CACHES: expected \"l1d,l2,l3\" in KiB, for example 32,512,32768; got 'foo'"),
    ],
)  # fmt: skip
def test_a_wrong_environment_is_one_line(name, value, words):
    words = words.format(isas=" ".join(_C.available_isas()))
    done = run(
        "import torch, fusegen, fusegen.cli\n"
        "print(fusegen.cli.main(['info']))\n"
        "try: fusegen.nn.LSTM(4, 4)(torch.zeros(2, 2, 4)); fusegen.info()\n"
        "except RuntimeError as error: print(error)",
        **{name: value},
    )
    assert (done.stdout, done.stderr) == (f"2\n{words}\n", f"fusegen info: error: {words}\n")


def test_info_tells_the_caches(monkeypatch, capsys):
    assert main(["info"]) == 0
    out, m = capsys.readouterr().out, _C.machine()
    (line,) = (line for line in out.splitlines() if line.startswith("caches"))
    assert line.endswith(f"({m['source']})") and f"L1 {m['l1d'] // KIB} KiB" in line
    monkeypatch.setattr(_info, "_machine", lambda: _C.machine_from(caches="48,2048,30720"))
    said = "L1 48 KiB, L2 2048 KiB a core, L3 30 MiB (overridden by FUSEGEN_CACHES)"
    assert said in _info.info()
    monkeypatch.setattr(_info, "_machine", lambda: _C.machine_from("AuthenticAMD", 0x00A00F11))
    assert "L3 8 MiB (default: " in _info.info() and "(amd, family 25 model 1)" in _info.info()
    monkeypatch.setattr(_info, "_machine", lambda: _C.machine_from(cpuid=CACHES[:3]))
    assert "L3 8 MiB (L1 CPUID, L2 CPUID, L3 default: " in _info.info()


# Several blocks of a panel, of the rows of a product and of a gradient's columns, whatever this machine has.
ANY_SIZES = """
import sys
import torch
import fusegen
from tolerances import close

fusegen.set_backend("fused")
for cell, (I, H, B, T) in (("LSTM", (300, 61, 7, 40)), ("GRU", (33, 130, 70, 6)), ("RNN", (9, 290, 33, 9))):
    torch.manual_seed(0)
    theirs = getattr(torch.nn, cell)(I, H, dtype=torch.float64)
    ours = getattr(fusegen.nn, cell)(I, H)
    ours.load_state_dict({name: w.float() for name, w in theirs.state_dict().items()})
    theirs.load_state_dict({name: w.double() for name, w in ours.state_dict().items()})
    x, dy = torch.randn(T, B, I), torch.randn(T, B, H)
    outputs = []
    for layer, dtype in ((ours, torch.float32), (theirs, torch.float64)):
        given = x.to(dtype, copy=True).requires_grad_()
        y, _ = layer(given)
        y.backward(dy.to(dtype))
        outputs.append((y, [given.grad, *(w.grad for w in layer.parameters())]))
    (y, grads), (y64, grads64) = outputs
    close(y, y64, "value", cell)
    close(grads, grads64, "grad", cell)
"""


@pytest.mark.parametrize("caches", ["4,32,128", "16,100,999", "64,65536,1048576"])
def test_results_are_right_with_any_caches(caches):
    found = run(ANY_SIZES, FUSEGEN_CACHES=caches, **WITH_TESTS)
    assert found.returncode == 0, found.stderr


def test_block_sizes_follow_from_the_caches():
    code = "import torch; from fusegen import _C; print(*_C.blocks().values())"
    small, large = (
        [int(n) for n in run(code, FUSEGEN_CACHES=caches).stdout.split()]
        for caches in ("32,256,4096", "48,2048,4096")
    )
    assert small == [160 * KIB, 256 * KIB // 3, 128 * KIB, 32 * KIB, 64 * KIB, 256 * KIB]
    assert large == [1280 * KIB, 2048 * KIB // 3, 1024 * KIB, 256 * KIB, 512 * KIB, 2048 * KIB]


@pytest.mark.parametrize(("isa", "floats"), [("avx2_vnni", "avx2"), ("avx512_vnni", "avx512")])
def test_a_set_of_int8_alone_runs_anothers_floats(isa, floats):
    if isa not in _C.available_isas():
        pytest.skip(f"this machine or build has no {isa}")
    done = run(
        "import torch, fusegen, fusegen._C as c\n"
        "print(c.isa(), c.float_isa())\n"
        "print(fusegen.info('lstm,8,8,2,3,float32,infer'))\n"
        "q, x = fusegen.quantize(torch.nn.GRU(5, 9)), torch.randn(4, 2, 5)\n"
        "with torch.no_grad(): print((q(x)[0] - fusegen.dequantize(q)(x)[0]).abs().max().item() < 3e-2)",
        FUSEGEN_ISA=isa,
    )
    first, *report, last = done.stdout.splitlines()
    assert first == f"{isa} {floats}" and last == "True", done.stderr
    assert f"{isa} in 8 bits, {floats} else" in "\n".join(report) and f"cpu {floats}" in "\n".join(report)
