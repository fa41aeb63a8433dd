"""Forecasters beyond the built-in ones: the exact filter of the session process, and those that learn from history.

`bayes_filter` is the ceiling that can be reached on session demand. `ridge` and `recurrent` forecast with weights that
each node has learned from its own history alone (`training` makes them, `checkpoint` keeps them); `online` goes on
learning. None needs torch but to learn.
"""
