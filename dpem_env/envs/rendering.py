"""What `render` gives, in every mode of the façades."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dpem_env.envs.metrics import CONTENDED
from dpem_env.envs.session import Session
from dpem_env.simulator.state import Status
from dpem_env.support.errors import DpemWarning, require_one_of

MODES = ("human", "rgb_array", "ansi")
FPS = 4  # slots per second


class SoFar(NamedTuple):
    """What an episode has come to."""

    delivered: int  # of the pairs that were due
    due: int  # pairs whose last slot has been played
    contention: float


def so_far(session: Session) -> SoFar:
    """Of the first network of a session, up to the slot about to be decided."""
    state, table = session.simulator.state, session.demand.requests
    due = table.last_slot < session.slot
    delivered = (state.request_status[0, : len(table.slot)] >= 0) & due
    places = 3 * session.network.num_nodes * max(session.slot, 1)
    return SoFar(int(delivered.sum()), int(due.sum()), float(state.tally[0, CONTENDED].sum() / places))


class Rendering:
    """The first network of a session to look at: in a window, as an array, as text, or not at all; below a title."""

    def __init__(self, session: Session, mode: str | None, title: str = "") -> None:
        require_one_of("render_mode", mode, (None, *MODES))
        if mode == "human" and not _has_windows():
            remedy = "set MPLBACKEND to a backend of matplotlib that has, such as TkAgg, or take 'rgb_array' or 'ansi'"
            warnings.warn(DpemWarning("render_mode 'human'", f"there are no windows here: {remedy}"), stacklevel=4)
        self.session, self.mode, self.title = session, mode, title
        self._view: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_view": None}  # a copy draws its own

    def played(self) -> None:
        """Call after reset and every step: a window follows by itself."""
        if self.mode == "human":
            self.render()

    def render(self) -> NDArray[np.uint8] | str | None:
        """(640, 900, 3) uint8 for "rgb_array", a text for "ansi"; None for "human", which shows it, and for no mode."""
        self.session.require_begun()
        if self.mode is None:
            return None
        from dpem_env.report.episode_view import as_text

        network, moment = self.session.network, self._moment()
        if self.mode == "ansi":
            return as_text(network, moment)
        if self._view is None or self._view.network is not network:
            self._view = self._new_view()
        if self.mode == "rgb_array":
            picture: NDArray[np.uint8] = self._view.picture(moment)
            return picture
        from matplotlib import pyplot

        self._view.show(moment)
        pyplot.pause(1 / FPS)
        return None

    def close(self) -> None:
        """Close the window, if there is one."""
        if self._view is not None and self.mode == "human":
            from matplotlib import pyplot

            pyplot.close(self._view.figure)
        self._view = None

    def _new_view(self) -> Any:
        from dpem_env.report.episode_view import SIZE, EpisodeView

        if self.mode != "human":
            return EpisodeView(self.session.network)
        self.close()
        from matplotlib import pyplot

        title = self.session.scenario.name
        return EpisodeView(self.session.network, pyplot.figure(title, figsize=SIZE, clear=True))

    def _moment(self) -> Any:
        from dpem_env.report.episode_view import Moment
        from dpem_env.report.network_map import current_load

        session, state = self.session, self.session.simulator.state
        network, table = session.network, session.demand.requests
        status = state.request_status[0, : len(table.slot)]
        last = session.slot - 1  # that was played
        now = so_far(session)
        pairs = np.stack((table.source, network.peers[table.source, table.peer]), axis=1)
        caption = f"{self.title}\n" * bool(self.title) + (
            f"slot {session.slot} of {session.slots}   {now.delivered} of {now.due} due pairs delivered   "
            f"contention {now.contention:.4f}   {(status == Status.PENDING).sum()} pending"
        )
        memory_used, allocations = current_load(network, state)
        fates = {
            "pending": status == Status.PENDING,
            "served": (status >= 0) & (status >= last),  # in the last slot, or from stock on arrival
            "expired": (status == Status.EXPIRED) & (table.last_slot == last),
        }
        requests = {fate: pairs[chosen] for fate, chosen in fates.items()}
        return Moment(caption, memory_used, allocations, state.contended[0], requests)


def _has_windows() -> bool:
    import matplotlib
    from matplotlib import pyplot

    try:
        pyplot.switch_backend(matplotlib.get_backend())
    except ImportError:
        return False
    return matplotlib.get_backend().lower() not in WITHOUT_WINDOWS


WITHOUT_WINDOWS = {"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"}
