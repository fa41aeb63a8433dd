"""Demand: requests as they arrive, and forecasts of them."""
