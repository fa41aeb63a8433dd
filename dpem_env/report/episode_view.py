"""An episode to watch: a slot as a picture or as text, with scales that stay the same from slot to slot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from dpem_env.network.network import Network
from dpem_env.report.network_map import name_nodes

SIZE = (9, 6.4)  # of a figure, in inches
MOST = 8  # allocations over a link; more look the same
FATES = {"pending": ("tab:orange", "-"), "served": ("tab:green", "-"), "expired": ("tab:red", ":")}
POINTS = np.linspace(0.0, 1.0, 16)  # along an arc
BEND = 0.18  # height of an arc over the distance of its ends
TOLD = 6  # requests of one fate that a text names


class Moment(NamedTuple):
    """What there is to see of a slot."""

    caption: str
    memory_used: NDArray[np.float64]  # (N,) share of each node's qubits
    allocations: NDArray[np.float64]  # (L,) open ones over each link
    contended: NDArray[np.integer[Any]]  # (N,) resources that each node was charged for in the last slot
    requests: Mapping[str, NDArray[np.integer[Any]]]  # one of `FATES` -> (n, 2) sources and destinations


class EpisodeView:
    """A map that is drawn once, and coloured anew for every slot.

    `figure`: where to; without one, a picture of its own is kept in memory.
    """

    def __init__(self, network: Network, figure: Any = None) -> None:
        topology = network.topology
        self.network = network
        self.figure = figure or Figure(figsize=SIZE, dpi=100)
        if figure is None:
            FigureCanvasAgg(self.figure)
        axes: Any = self.figure.add_axes((0.03, 0.03, 0.78, 0.87))
        segments = list(topology.position[topology.links])
        axes.add_collection(LineCollection(segments, colors="0.85", linewidths=0.8, zorder=1))
        self._links = LineCollection(segments, cmap="plasma_r", zorder=2)
        self._links.set_clim(0, MOST)
        axes.add_collection(self._links)
        self._arcs = {
            fate: axes.add_collection(
                LineCollection([], colors=colour, linestyles=line, linewidths=1.3, alpha=0.8, zorder=3)
            )
            for fate, (colour, line) in FATES.items()
        }
        size = 16 + 6 * topology.generation_rate
        self._nodes = axes.scatter(
            *topology.position.T, c=np.zeros(len(size)), s=size, cmap="viridis", vmin=0.0, vmax=1.0, zorder=4
        )
        self._rings = axes.scatter(
            *topology.position.T, s=size + 60, facecolors="none", edgecolors="tab:red", linewidths=1.8, zorder=5
        )
        name_nodes(axes, network)
        low, high = topology.position.min(axis=0), topology.position.max(axis=0)
        longest = max((high - low).max(), 1e-9)
        room = np.maximum(0.1 * longest, 0.25 * longest - (high - low) / 2)  # for arcs, on a line of nodes, too
        axes.set(xlim=(low[0] - room[0], high[0] + room[0]), ylim=(low[1] - room[1], high[1] + room[1]))
        axes.set_aspect("equal")
        axes.set_xticks([])
        axes.set_yticks([])
        self._caption = self.figure.text(0.03, 0.94, "", fontsize=10)
        styles: dict[str, dict[str, Any]] = {fate: {"color": c, "linestyle": line} for fate, (c, line) in FATES.items()}
        styles["contended"] = {"marker": "o", "markerfacecolor": "none", "markeredgecolor": "tab:red", "linestyle": ""}
        handles = [Line2D([], [], label=label, **style) for label, style in styles.items()]
        self.figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.81, 0.9), fontsize=8, frameon=False)
        for artist, label, bottom in ((self._nodes, "memory in use", 0.4), (self._links, "allocations per link", 0.08)):
            self.figure.colorbar(artist, cax=self.figure.add_axes((0.83, bottom, 0.015, 0.25)), label=label)

    def show(self, moment: Moment) -> None:
        """Colour the map."""
        busy = np.minimum(moment.allocations, MOST)
        self._links.set_array(np.ma.masked_equal(busy, 0.0))
        self._links.set_linewidth(list(0.8 + 3.2 * busy / MOST))
        self._nodes.set_array(moment.memory_used)
        self._rings.set_linewidth([1.8 if charges else 0.0 for charges in moment.contended])
        position = self.network.topology.position
        for fate, arcs in self._arcs.items():
            arcs.set_segments(list(_arcs(position[moment.requests[fate]])))
        self._caption.set_text(moment.caption)

    def picture(self, moment: Moment) -> NDArray[np.uint8]:
        """(640, 900, 3) of a slot."""
        self.show(moment)
        canvas: Any = self.figure.canvas
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _arcs(ends: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, points, 2) from (n, 2, 2) ends: quadratic curves, bent to the left, so that there and back are apart."""
    start, stop = ends[:, 0, None], ends[:, 1, None]
    along = stop - start
    middle = (start + stop) / 2 + BEND * 2 * np.stack((-along[..., 1], along[..., 0]), axis=-1)
    t = POINTS[:, None]
    curves: NDArray[np.float64] = (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * stop
    return curves


def as_text(network: Network, moment: Moment) -> str:
    """A slot in a few lines."""
    names = network.topology.names
    lines = [moment.caption]
    for fate, requests in moment.requests.items():
        some = [f"{names[source]} → {names[target]}" for source, target in requests[:TOLD].tolist()]
        more = [f"and {len(requests) - TOLD} more"] if len(requests) > TOLD else []
        lines.append(f"{fate:9} {len(requests):3}  {', '.join(some + more)}".rstrip())
    charged = np.flatnonzero(moment.contended)
    lines.append(f"contended {len(charged):3}  {', '.join(names[i] for i in charged[:TOLD].tolist())}".rstrip())
    used, busiest = moment.memory_used, int(moment.memory_used.argmax())
    lines.append(f"memory in use {used.mean():.0%}, at most {used[busiest]:.0%} ({names[busiest]})")
    return "\n".join(lines)
