"""A map of the network: nodes coloured by memory in use, links by the allocations that hold them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dpem_env.network.network import Network

MOST_NAMED = 40  # nodes; names of more would hide the map


def current_load(network: Network, state: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Share of each node's memory in use (N,) and open allocations over each link (L,), of a state's first."""
    node, row = np.nonzero(state.alloc_peer[0] >= 0)
    links = network.routes.links[node, state.alloc_peer[0, node, row], state.alloc_route[0, node, row]]
    allocations = np.bincount(links[links >= 0], minlength=network.topology.num_links).astype(np.float64)
    return 1.0 - state.free_memory[0] / network.topology.memory, allocations


def draw_network(
    axes: Any, network: Network, memory_used: NDArray[np.float64], allocations: NDArray[np.float64], title: str
) -> None:
    """Draw a map into matplotlib axes."""
    topology = network.topology
    segments = topology.position[topology.links]  # (L, 2, 2)
    widest = max(float(allocations.max(initial=0.0)), 1e-9)
    axes.add_collection(LineCollection(list(segments), colors="0.85", linewidths=0.8, zorder=1))
    busy = LineCollection(list(segments), cmap="plasma_r", linewidths=0.8 + 3.2 * allocations / widest, zorder=2)
    busy.set_array(np.ma.masked_equal(allocations, 0.0))
    busy.set_clim(0.0, widest)
    axes.add_collection(busy)
    nodes = axes.scatter(
        *topology.position.T,
        c=memory_used,
        s=12 + 6 * topology.generation_rate,
        cmap="viridis",
        vmin=0.0,
        vmax=max(float(memory_used.max()), 1e-9),
        edgecolors="0.2",
        linewidths=0.5,
        zorder=3,
    )
    name_nodes(axes, network)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("km")
    axes.set_aspect("equal")
    axes.autoscale_view()
    figure = axes.get_figure()
    figure.colorbar(nodes, ax=axes, label="memory in use (share)", shrink=0.7, pad=0.01)
    figure.colorbar(busy, ax=axes, label="open allocations per link", shrink=0.7, pad=0.03)


def name_nodes(axes: Any, network: Network) -> None:
    """Write names beside nodes, unless there are too many."""
    topology = network.topology
    if topology.num_nodes <= MOST_NAMED:
        for name, (x, y) in zip(topology.names, topology.position.tolist(), strict=True):
            axes.annotate(
                name, (x, y), (3, 3), textcoords="offset points", fontsize=6, color="0.3", zorder=4, parse_math=False
            )


def save_map(path: Path, network: Network, least_rate: float) -> None:
    """Draw a network that nobody plays in: links by the pairs that arrive over them, nodes by their partners."""
    topology = network.topology
    arriving = topology.generation_rate[topology.emitter] * topology.transmission  # (L,) pairs/s
    figure = Figure(figsize=(9, 7), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.add_subplot()
    segments = list(topology.position[topology.links])
    links = LineCollection(segments, cmap="viridis_r", linewidths=1.6, zorder=1)
    links.set_array(arriving)
    links.set_linestyle([":" if rate < least_rate else "-" for rate in arriving])
    links.set_clim(0.0, max(float(arriving.max(initial=0.0)), 1e-9))
    axes.add_collection(links)
    partners = (network.peers >= 0).sum(axis=1)
    alone = partners == 0
    size = 25 + 6 * topology.generation_rate
    axes.scatter(*topology.position[~alone].T, s=size[~alone], c="0.35", zorder=2, label="has partners")
    if alone.any():
        axes.scatter(
            *topology.position[alone].T, s=size[alone], c="none", edgecolors="tab:red", zorder=2, label="has no partner"
        )
    name_nodes(axes, network)
    where = "km" if topology.placed else "km, places made up from the lengths of links"
    axes.set_xlabel(where)
    axes.set_aspect("equal")
    axes.autoscale_view()
    axes.margins(0.1)
    axes.legend(loc="best", fontsize=7)
    figure.colorbar(links, ax=axes, label=f"pairs/s over a link (dotted: below {least_rate:g})", shrink=0.7)
    figure.savefig(path, format="png", bbox_inches="tight")  # an equal aspect leaves a wide margin otherwise
