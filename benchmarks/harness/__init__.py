"""What every benchmark shares: cases, checks, clocks, the way through a grid, bars, rows and their files. It
knows no contestant; those are in peers/.
"""
