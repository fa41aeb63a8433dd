"""Worlds that tests play in."""

from __future__ import annotations

from typing import Any

# The first rules: pairs so good, and purification so free of errors, that most numbers are round, and nobody asks.
IDEAL: dict[str, Any] = {
    "purification_gates": "ideal",
    "link_fidelity": 0.98,
    "gate_fidelity": 0.99,
    "readout_fidelity": 0.99,
    "fidelity_classes": (0.70, 0.80, 0.90),
    "deadline": 1.0,
    "swapping": "all",
    "news_period": None,
}
