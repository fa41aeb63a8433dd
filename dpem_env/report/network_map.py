"""A map of the network: nodes coloured by memory in use, links by the allocations that hold them."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dpem_env.network.network import Network


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
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("km")
    axes.set_aspect("equal")
    axes.autoscale_view()
    figure = axes.get_figure()
    figure.colorbar(nodes, ax=axes, label="memory in use (share)", shrink=0.7, pad=0.01)
    figure.colorbar(busy, ax=axes, label="open allocations per link", shrink=0.7, pad=0.03)


def network_image(network: Network, state: Any, slot: int) -> NDArray[np.uint8]:
    """(height, width, 3) picture of a network in a simulator's first state."""
    figure = Figure(figsize=(8, 6), dpi=100, layout="constrained")
    canvas: Any = FigureCanvasAgg(figure)
    draw_network(figure.add_subplot(), network, *current_load(network, state), title=f"slot {slot}")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
