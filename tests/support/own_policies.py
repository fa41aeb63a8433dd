"""A user's file of policies, good and bad."""

from __future__ import annotations

from pathlib import Path

HELPER = "LEAST = 1\n"
MINE = """
import random

import numpy as np

from dpem_env.policies import CentralPolicy, Decision, LocalPolicy
from stock_rule import LEAST


class Stock(LocalPolicy):
    search_space = {"least": (1, 2)}

    def __init__(self, least=LEAST):
        self.least = least

    def act(self, observations, masks):
        lacking = observations.stored_pairs[:, 0] + observations.open_allocations[:, 0] < self.least
        return Decision(np.where(lacking & (masks[:, 1] == 1), 1, 0))


class Controller(CentralPolicy):
    def act(self, view):
        return Decision(view.masks[:, ::-1].argmax(axis=1) * 0)


stock = Stock(2)


def wait(observations, masks):
    return np.zeros(len(masks), dtype=int)


class Net:
    def __call__(self, observations, masks):
        return masks[:, 1].astype(int)


FIVE = 5


class Plain:
    pass


class Abstract(LocalPolicy):
    pass


class Needs(Stock):
    def __init__(self, path):
        pass


class Breaks(Stock):
    def __init__(self):
        raise OSError("no weights")


class Late(Stock):
    slot = 0

    def reset(self, scenario, network, seed):
        self.slot = 0

    def act(self, observations, masks):
        self.slot += 1
        if self.slot > 13:
            raise IndexError("too late")
        return super().act(observations, masks)


def floats(observations, masks):
    return np.zeros(len(masks))


def short(observations, masks):
    return np.zeros(1, dtype=int)


def far(observations, masks):
    return np.full(len(masks), masks.shape[1])


def forbidden(observations, masks):
    return masks.argmin(axis=1)


def drawn(observations, masks):
    return (np.random.random(masks.shape) * masks).argmax(axis=1)


def together(observations, masks):
    return np.where(masks[:, 1] == 1, observations.sum() * 1000 % 2 > 1, 0).astype(int)


def writes(observations, masks):
    observations[:] = 0.0
    return wait(observations, masks)


def one(observations):
    return wait(observations, observations)


class Bare(LocalPolicy):
    def act(self, observations, masks):
        return wait(observations, masks)


class Remembers(LocalPolicy):
    before = 0

    def act(self, observations, masks):
        self.before += 1
        return Decision(np.where(masks[:, 1] == 1, self.before // 7 % 2, 0))
"""


def write_own_policies(folder: Path) -> Path:
    """`mine.py`, and a module beside it that it imports."""
    (folder / "stock_rule.py").write_text(HELPER)
    path = folder / "mine.py"
    path.write_text(MINE)
    return path
