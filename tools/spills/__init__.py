"""The machine code of the CPU's kernels, as objdump prints it: read, divided into blocks and loops, counted.
No part of the package that is installed.
"""
