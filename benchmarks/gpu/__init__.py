"""What needs an NVIDIA GPU: the suites under `--device cuda` (as in speed/: `run(options)`, `bars(rows)`),
the machine's ceilings, what the chip's parts do by themselves, and what to tune next.
"""
