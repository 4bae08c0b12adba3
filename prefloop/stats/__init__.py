"""Intervals, agreement and the arithmetic of best-of-n: NumPy only, no torch."""
