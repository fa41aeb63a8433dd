"""Reading observations, compiled: all features of peers at once, in natural units."""

from __future__ import annotations

import numpy as np

from dpem_env.support.compiled import Entry, entry


@entry
def _read_peers(rows, node_width, scale, whole, out):
    """Column c of the block of peer d in row n, times its scale, and rounded if it is a count, at out[c, n, d].

    Dividing and multiplying by a scale may have moved a count. The rows of one column lie side by side: NumPy sums a
    few long rows ten times faster than many short ones.
    """
    first, width, peers = np.uint32(node_width), np.uint32(len(scale)), np.uint32(out.shape[2])
    for n in range(np.uint32(out.shape[1])):
        for c in range(width):
            factor = scale[c]
            if whole[c]:
                for d in range(peers):
                    out[c, n, d] = np.rint(np.float64(rows[n, first + d * width + c]) * factor)
            else:
                for d in range(peers):
                    out[c, n, d] = np.float64(rows[n, first + d * width + c]) * factor


read_peers = Entry(_read_peers)
