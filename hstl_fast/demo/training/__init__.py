"""The training of `hstl-fast demo --train`: rendered walkers, their hierarchy, a small network, and its evaluation.

Needs the extras `[cli]`, `[train]` and `[hierarchy]`.
"""
