"""The front of a cloud of points: their upper concave envelope."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def envelope(x: Array, y: Array) -> tuple[Array, Array]:
    """Corners of the upper concave envelope of (P,) points and the origin, up to the highest (Andrew, IPL 9, 1979)."""
    corners = [(0.0, 0.0)]
    for point in sorted(zip(x.tolist(), y.tolist(), strict=True), key=lambda point: (point[0], -point[1])):
        if point[1] <= corners[-1][1]:
            continue  # as far to the right or more, and no higher
        while len(corners) > 1 and _is_below(corners[-1], corners[-2], point):
            corners.pop()
        if point[0] == corners[-1][0]:  # right above the origin
            corners.pop()
        corners.append(point)
    across, up = np.array(corners).T
    return across, up


def _is_below(point: tuple[float, float], left: tuple[float, float], right: tuple[float, float]) -> bool:
    """Whether a point is not above the line between two others."""
    rise = (point[1] - left[1]) * (right[0] - left[0])
    return rise <= (right[1] - left[1]) * (point[0] - left[0])
