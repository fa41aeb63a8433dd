"""Places and fibres before hardware is drawn, and the geometry they need: on a plane, on the globe, along fibres."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]

EARTH_RADIUS = 6371.0  # km
GOLDEN_ANGLE = np.pi * (3.0 - np.sqrt(5.0))
ROUNDS = 60  # of stress majorization; more change a picture little
LARGEST_UNFOLDED = 500  # nodes; of more a picture shows nothing


@dataclass(frozen=True)
class Layout:
    """What generators and importers return. N nodes, L links."""

    names: tuple[str, ...]
    position: Floats  # (N, 2) km
    links: Ints  # (L, 2)
    length: Floats  # (L,) km
    relays: NDArray[np.bool_] | None = None  # (N,) nodes with hardware of their own (chain, star)
    globe: Floats | None = None  # (N, 3) km from the centre of a globe, where positions are a map of it
    placed: bool = True  # False: nobody knows where the nodes are
    hardware: Mapping[str, Floats] = field(default_factory=dict)  # (N,) of nodes by name; NaN: none of its own
    fibres: Mapping[str, Floats] = field(default_factory=dict)  # (L,) of links by name, likewise


def shortest_fibres(fibres: list[tuple[int, int, float]], scale: float) -> tuple[Ints, Floats]:
    """Links and their lengths in km, scaled; of parallel fibres the shortest counts."""
    shortest: dict[tuple[int, int], float] = {}
    for u, v, km in fibres:
        if u != v:
            ends = (min(u, v), max(u, v))
            shortest[ends] = min(km, shortest.get(ends, np.inf))
    links = np.array(sorted(shortest), dtype=np.int32).reshape(-1, 2)
    return links, np.array([shortest[u, v] for u, v in links.tolist()]) * scale


def projected(degrees: Floats) -> Floats:
    """Longitude and latitude in degrees to km on an equirectangular map around the mean latitude.

    The map is cut where the longitudes leave the widest gap, which need not be at ±180 degrees.
    """
    lon, lat = degrees.T
    ordered = np.sort(lon)
    gaps = np.diff(ordered, append=ordered[0] + 360.0)
    widest = int(gaps.argmax())
    if widest < len(gaps) - 1:
        lon = np.where(lon <= ordered[widest], lon + 360.0, lon)
    lon, lat = np.radians(lon), np.radians(lat)
    flat = EARTH_RADIUS * np.stack(((lon - lon.mean()) * np.cos(lat.mean()), lat - lat.mean()), axis=1)
    return flat


def on_globe(degrees: Floats) -> Floats:
    """(N, 3) km from the centre of the earth, of longitudes and latitudes in degrees."""
    lon, lat = np.radians(degrees).T
    return EARTH_RADIUS * np.stack((np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)), axis=1)


def great_circles(globe: Floats) -> Floats:
    """(N, N) km along the surface, from the chords."""
    chord = np.linalg.norm(globe[:, None, :] - globe, axis=-1)
    diameter = 2.0 * np.linalg.norm(globe, axis=1).max()
    arc: Floats = diameter * np.arcsin(np.minimum(chord / diameter, 1.0))
    return arc


def along_fibres(nodes: int, links: Ints, length: Floats) -> Floats:
    """(N, N) km of the shortest way over links."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import shortest_path

    graph = coo_array((length, (links[:, 0], links[:, 1])), (nodes, nodes)).tocsr()
    ways: Floats = shortest_path(graph, directed=False)
    return ways


def unfolded(nodes: int, links: Ints, length: Floats) -> Floats:
    """(N, 2) places, for pictures, whose distances come near those along fibres; a mere spiral for very many nodes.

    By stress majorization, each round a Guttman transform (de Leeuw, 1977), from a spiral of the golden angle.
    """
    turn, out = np.arange(nodes) * GOLDEN_ANGLE, np.sqrt(np.arange(nodes) + 0.5)
    place = np.stack((out * np.cos(turn), out * np.sin(turn)), axis=1)
    if nodes > LARGEST_UNFOLDED:
        return place
    apart = along_fibres(nodes, links, length)
    if not np.isfinite(apart).all():
        return place
    for _ in range(ROUNDS):
        delta = place[:, None, :] - place
        now = np.hypot(delta[..., 0], delta[..., 1])
        pull = np.divide(apart, now, out=np.zeros_like(apart), where=now > 0.0)
        place = (pull.sum(axis=1)[:, None] * place - pull @ place) / nodes
    return place
