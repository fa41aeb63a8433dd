"""The privacy budget: rounds charged so far, kept in a file that outlives the program."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from dpem_agents.federated.accounting import Charge, epsilon
from dpem_agents.federated.privacy import DPConfig
from dpem_env.errors import DpemError
from dpem_env.files import write_json

FORMAT = "dpem-privacy-ledger-1"


class BudgetExhausted(DpemError):
    """Another round would take ε beyond `max_epsilon`; nothing was released."""


class Ledger:
    """What has been spent on the same nodes, one round at a time; with a path, in a JSON file of one program at a time.

    A missing file is an empty ledger, a damaged one an error: it is never taken for empty.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = None if path is None else Path(path)
        self.charges: tuple[Charge, ...] = () if self.path is None else _load(self.path)

    @property
    def rounds(self) -> int:
        """Charged so far."""
        return sum(charge.rounds for charge in self.charges)

    @property
    def private(self) -> bool:
        """Whether every round had noise that nobody can know."""
        return all(charge.private for charge in self.charges)

    def require_room(self, dp: DPConfig) -> None:
        """Raise BudgetExhausted unless another round keeps ε within `max_epsilon`."""
        if dp.max_epsilon == math.inf:
            return
        spent = epsilon(self._with(dp.charge), dp.delta, dp.accountant)
        if spent > dp.max_epsilon:
            raise BudgetExhausted(
                f"round {self.rounds + 1} would take ε to {spent:.4g}, beyond max_epsilon {dp.max_epsilon:.4g} at δ = "
                f"{dp.delta:g}: nothing was released"
            )

    def charge(self, dp: DPConfig) -> None:
        """Book a round, before it is released: BudgetExhausted, or DpemError if the file cannot be written."""
        self.require_room(dp)
        charges = self._with(dp.charge)
        if self.path is not None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                write_json(self.path, {"format": FORMAT, "charges": [asdict(charge) for charge in charges]})
            except (OSError, ValueError) as error:  # ValueError: a path with a null character
                raise DpemError(f"privacy ledger {os.fspath(self.path)!r} cannot be written: {error}") from None
        self.charges = charges

    def _with(self, one: Charge) -> tuple[Charge, ...]:
        rounds = {replace(charge, rounds=1): charge.rounds for charge in self.charges}
        rounds[one] = rounds.get(one, 0) + 1
        return tuple(replace(kind, rounds=number) for kind, number in rounds.items())


def _load(path: Path) -> tuple[Charge, ...]:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["format"] != FORMAT:
            raise ValueError(f"format {stored['format']!r} instead of {FORMAT!r}")
        return tuple(_checked(**charge) for charge in stored["charges"])
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else f"{error}"
        raise DpemError(f"privacy ledger {os.fspath(path)!r} cannot be used: {reason}") from None


def _checked(**values: Any) -> Charge:
    charge = Charge(**values)
    kinds = {field.name: type(getattr(charge, field.name)) for field in fields(Charge)}
    numbers = 0.0 < charge.sample_rate <= 1.0 and 0.0 <= charge.noise_multiplier < math.inf and charge.rounds >= 1
    if not numbers or kinds["private"] is not bool or kinds["rounds"] is not int:
        raise ValueError(f"{charge} is no charge")
    return charge
