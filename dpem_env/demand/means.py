"""Means over past slots as forecasts, compiled."""

from __future__ import annotations

from dpem_env.support.compiled import Entry, entry


@entry
def _spread_mean(total, slots, forecast):
    """Fill (N, D, H) `forecast` with (N, D) `total` over a number of slots, the same for every slot ahead."""
    for i in range(forecast.shape[0]):
        for d in range(forecast.shape[1]):
            forecast[i, d] = total[i, d] / slots


spread_mean = Entry(_spread_mean)
