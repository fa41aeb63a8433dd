"""Learners of swaps, graded in per cent of the exact optimum: see docs/swap-chain.md."""
