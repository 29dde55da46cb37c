"""The suites on the CPU, a module each: `run(options) -> list[Row]`, and `bars(rows) -> list[Bar]`, which
judges them. Those of a GPU are in gpu/, by the same names.
"""
