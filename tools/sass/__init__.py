"""The machine code of the CUDA kernels, as nvdisasm prints it: read, divided into blocks and loops, run for
one case without a GPU, priced, and held to rules. No part of the package that is installed.
"""
