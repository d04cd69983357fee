"""The race: every variant against the public implementation of its paper, side by side on a CPU.

`make race`, or `python -m tests.benchmarks.race`. One row a variant, length and pass; ratios are the peer
over ours, so above 1 is ours ahead.
"""
