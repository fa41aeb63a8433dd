"""A file of local policies that decide by more than a node's own row, so late that no trial of a few slots sees it."""

from __future__ import annotations

from pathlib import Path

CHEATS = '''
import numpy as np

from dpem_env.policies import Decision, LocalPolicy

HONEST = 15  # slots


class Late(LocalPolicy):
    """Asks for its first peer whenever it may; the kinds below do otherwise later on."""

    def reset(self, scenario, network, seed):
        self.slot, self.seed = 0, seed

    def act(self, observations, masks):
        self.slot += 1
        wants = self.wants(observations) if self.slot > HONEST else np.ones(len(masks), dtype=bool)
        return Decision(np.where(wants & (masks[:, 1] == 1), 1, 0))

    def wants(self, observations):
        return np.ones(len(observations.matrix), dtype=bool)


class Peeks(Late):
    """Looks at the row of the next node."""

    def wants(self, observations):
        return np.roll(observations.pending.sum(axis=(1, 2)), 1) > 0


class Shares(Late):
    """Every node leaves what it sees in a memory of all, and acts on what others have left there the slot before."""

    board = {}

    def wants(self, observations):
        seen = dict(self.board)
        self.board.update(enumerate(observations.pending.sum(axis=(1, 2))))
        nodes = range(len(observations.matrix))
        return np.array([sum(seen.get(other, 0) for other in nodes if other != node) > 3 for node in nodes])


class Seeded(Late):
    """Decides by the seed that reset gives."""

    def wants(self, observations):
        return np.random.default_rng([self.seed, self.slot]).random(len(observations.matrix)) < 0.5


class Breaks(Late):
    """Fails unless it is shown rows that differ."""

    def wants(self, observations):
        if np.ptp(observations.matrix, axis=0).max() == 0:
            raise ValueError("all rows are one")
        return super().wants(observations)


class Forecasts:
    """Expects of every node what all nodes were asked for."""

    clairvoyant = False

    def reset(self, setting):
        self.setting, self.slot = setting, 0
        self.counts = np.zeros(setting.peers.shape)

    def observe(self, requests):
        self.slot += 1
        self.counts += self.setting.counts(requests)

    def predict(self, lead=0):
        counts = np.full_like(self.counts, self.counts.mean()) if self.slot > HONEST else self.counts
        return np.repeat(counts[:, :, None], self.setting.horizon, axis=2)
'''


def write_cheats(folder: Path) -> Path:
    """`cheats.py` in a folder."""
    path = folder / "cheats.py"
    path.write_text(CHEATS)
    return path
