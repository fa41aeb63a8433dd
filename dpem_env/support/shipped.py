"""What comes with the package beside code: options tuned for shipped scenarios, and small trained policies."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def _place(name: str, in_clone: str) -> Path:
    """In the package if it was installed from a wheel, else where the clone has it."""
    installed = PACKAGE / "shipped" / name
    return installed if installed.is_dir() else PACKAGE.parent / in_clone


TUNED = _place("tuned", "baselines/tuned")  # a file for every scenario
POLICIES = _place("policies", "agents/checkpoints/shipped")  # folders of trainings
