"""The exact forecast of session demand from a node's own requests: how well anyone can forecast who is no clairvoyant.

A pair of `SessionDemand` is a hidden Markov chain of two states. A session is on with probability p; after each slot
on it ends with probability a, after each slot off it begins with probability b = a·p/(1 - p). Counts are Poisson with
mean m·((1 - φ) + φ/p) when on and m·(1 - φ) when off; where a request is for n pairs, its n count once. The filter
(Rabiner 1989, eq. 19-20, the scaled forward recursion) knows p, a, φ and every pair's mean rate m, but no session:
those it infers from the counts.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from dpem_env.demand.forecast import F64, ForecastSetting, NewRequests
from dpem_env.support.errors import PolicyError

LARGEST_EXPONENT = 700.0  # e to this is still a number


class BayesFilter:
    """Forward filter of every pair's on/off chain, and the chain's relaxation ahead of it.

    With periodic arrivals it is an approximation: it takes the requests of a session for Poisson ones of equal rate, so
    it finds sessions but not the beat within them.
    """

    clairvoyant: ClassVar[bool] = False

    def reset(self, setting: ForecastSetting) -> None:
        """Every chain starts stationary; raises PolicyError for demand that has no such chain."""
        demand = setting.scenario.demand
        if demand.kind != "sessions":
            raise PolicyError(
                f"the Bayes filter knows the process of demand of kind 'sessions'; {setting.scenario.name} "
                f"has {demand.kind!r} demand"
            )
        self.setting = setting
        self._share = demand.session_share
        leave_on = setting.scenario.control.slot_duration / demand.session_duration
        leave_off = leave_on * self._share / (1.0 - self._share)
        self._memory = 1.0 - leave_on - leave_off  # the chain's second eigenvalue: what a slot leaves of a deviation
        self._off_rate = setting.mean_rates * (1.0 - demand.predictability)
        self._extra_rate = setting.mean_rates * (demand.predictability / self._share)  # when on
        # ln(rate off / rate on); a pair that never asks tells nothing
        ratio = np.ones_like(self._off_rate)
        on_rate = self._off_rate + self._extra_rate
        np.divide(self._off_rate, on_rate, out=ratio, where=on_rate > 0)
        self._log_ratio = np.log(np.maximum(ratio, np.finfo(float).tiny))
        self._on = np.full(setting.peers.shape, self._share)  # P(on in the next slot | all counts seen)

    def observe(self, requests: NewRequests) -> None:
        """Weigh on against off by the slot's counts, then let the chain take its step."""
        pairs = self.setting.counts(requests) * self._log_ratio + self._extra_rate
        exponent = pairs / self.setting.scenario.demand.pairs_per_request  # which arrive together
        off_to_on = np.exp(np.clip(exponent, -LARGEST_EXPONENT, LARGEST_EXPONENT))  # likelihood ratio
        total = self._on + (1.0 - self._on) * off_to_on
        seen = np.divide(self._on, total, out=self._on.copy(), where=total > 0)
        self._on = self._share + (seen - self._share) * self._memory

    def predict(self, lead: int = 0) -> F64:
        """Mean count of each slot ahead: P(on) relaxes to its mean by the same factor every slot."""
        decay = self._memory ** np.arange(lead, lead + self.setting.horizon)
        on = self._share + (self._on - self._share)[:, :, None] * decay
        return self._off_rate[:, :, None] + self._extra_rate[:, :, None] * on
