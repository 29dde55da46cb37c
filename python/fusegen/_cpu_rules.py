"""Written by `python benchmarks/choice.py FILE...` from result files; not by hand.

(instruction set, vendor) -> ranges of calls in which torch measured faster than the fused kernels: (cell,
dtype, train, (I from, to), (H from, to), (B from, to), (T from, to), (threads from, to), source). What is not
here runs on the fused kernels.
"""

MEASURED = {
    ("avx2", "amd"): (
        ("discriminator_step none", "float32", True,
         (1, 3), (1, 388162), (129, 2147483647), (1, 1), (1, 2147483647),
         "2026-11-29-10b4641313.csv"),
        ("discriminator_step none", "float32", True,
         (1, 3), (2473581, 2147483647), (129, 2147483647), (1, 1), (1, 2147483647),
         "2026-11-29-10b4641313.csv"),
        ("discriminator_step none", "float32", True,
         (1, 4), (388163, 2473580), (129, 2147483647), (1, 1), (1, 2147483647),
         "2026-11-29-10b4641313.csv"),
        ("lstm", "float32", True,
         (1, 2147483647), (725, 2147483647), (6, 45), (2, 2147483647), (1, 2147483647),
         "2026-11-29-26ab7e1e78.csv"),
        ("rnn_cell", "float32", False,
         (1, 2147483647), (257, 724), (91, 2147483647), (1, 1), (1, 2147483647),
         "2026-11-29-6b96716e8b.csv"),
        ("rnn_cell", "float32", True,
         (1, 2147483647), (1, 256), (1, 5), (1, 1), (1, 2147483647),
         "2026-11-29-6b96716e8b.csv"),
        ("rnn_cell", "float32", True,
         (1, 2147483647), (1, 256), (91, 2147483647), (1, 1), (1, 2147483647),
         "2026-11-29-6b96716e8b.csv"),
        ("rnn_cell", "float32", True,
         (1, 2147483647), (257, 724), (6, 90), (1, 1), (1, 2147483647),
         "2026-11-29-6b96716e8b.csv"),
        ("rnn_cell", "float32", True,
         (1, 2147483647), (725, 2147483647), (91, 2147483647), (1, 1), (1, 2147483647),
         "2026-11-29-6b96716e8b.csv"),
    ),
}  # fmt: skip
