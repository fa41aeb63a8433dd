"""The privacy budget: rounds charged so far, each with what it released, in files that outlive the program."""

from __future__ import annotations

import hashlib
import io
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ConfigDict, Field, model_validator

from dpem_agents.federated.accounting import MOST_ROUNDS, Charge, epsilon
from dpem_agents.federated.privacy import DPConfig
from dpem_agents.federated.spec import Vector
from dpem_env.support.errors import DpemError
from dpem_env.support.files import (
    ArrayFile,
    Part,
    checked,
    file_name,
    read_json,
    reading,
    sole_writer,
    whole_file,
    write_json,
)

FORMAT = "dpem-privacy-ledger-2"
PATIENCE = 60.0  # s to wait for another program that charges the same ledger


class BudgetExhausted(DpemError):
    """Another round would take ε beyond `max_epsilon`; nothing was released.

    `learned` is the checkpoint of forecasters whose training ended by it.
    """

    learned: Any = None


@dataclass(frozen=True)
class Release:
    """What a round hands out: enough to go on from after a restart."""

    name: str  # of the training and the round in it; no other release in the ledger has it
    vector: Vector  # (d,)
    clip_norm: float  # of the next round
    noise: float  # standard deviation of one coordinate, in clips


@dataclass(frozen=True)
class Entry:
    """A round that was charged; with the name of its release and the SHA-256 of that file, where it has one."""

    charge: Charge
    release: str | None = None
    sha256: str | None = None


class Ledger:
    """What has been spent on the same nodes, one round at a time; with a path, in a JSON file.

    A round with a `Release` is charged together with it. First the file announces the release by its name, then the
    release is written, to the folder "-releases" beside it, then the charge that names it by its hash; each is on disk
    before the next, and all before `charge` returns. So whatever stops the program, what was handed out has been
    charged, and what has been charged is there to be handed out, once and the same. A release that is announced and
    not charged has been seen by nobody, and is overwritten. One that is neither shows that the file was deleted or set
    back: an error.

    Several programs may charge one file: each does so under a lock, on top of what it then finds there. Where no
    releases are, a missing file is an empty ledger. A damaged one is an error, and so is one that lacks what this
    object has read or written before.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = None if path is None else Path(path)
        self._booked, self._announced = (Counter[Entry](), frozenset[str]()) if self.path is None else _read(self.path)

    @property
    def charges(self) -> tuple[Charge, ...]:
        """Of all rounds, equal ones together."""
        return _together(self._booked)

    @property
    def rounds(self) -> int:
        """Charged so far."""
        return self._booked.total()

    @property
    def unnamed(self) -> int:
        """Rounds whose release is not kept here."""
        return sum(number for entry, number in self._booked.items() if entry.release is None)

    @property
    def private(self) -> bool:
        """Whether every round had noise that nobody can know."""
        return all(charge.private for charge in self.charges)

    def require_room(self, dp: DPConfig) -> None:
        """Raise BudgetExhausted unless another round keeps ε within `max_epsilon`."""
        if dp.max_epsilon == math.inf:
            return
        spent = epsilon(_together(self._booked + Counter([Entry(dp.charge)])), dp.delta, dp.accountant)
        if spent > dp.max_epsilon:
            raise BudgetExhausted(
                f"round {self.rounds + 1} would take ε to {spent:.4g}, beyond max_epsilon {dp.max_epsilon:.4g} at δ = "
                f"{dp.delta:g}: nothing was released"
            )

    def charge(self, dp: DPConfig, release: Release | None = None) -> None:
        """Book a round and, with a path, keep its release; only then it may be handed out.

        BudgetExhausted, or DpemError if the files cannot be written: then nothing is booked or kept.
        """
        if self.path is None:
            self.require_room(dp)
            self._booked[Entry(dp.charge)] += 1
            return
        with self._sole_writer(self.path):
            self._booked, self._announced = self._read_again(self.path)
            self.require_room(dp)
            self._book(self.path, dp.charge, release)

    def release(self, name: str) -> Release | None:
        """What was charged by that name, None if nothing was; DpemError if the file is missing, or another."""
        entry = next((entry for entry in self._booked if entry.release == name), None)
        if entry is None or self.path is None:
            return None
        file = _file_of(self.path, name)
        with reading("release of a charged round", file):
            content = file.read_bytes()
            if hashlib.sha256(content).hexdigest() != entry.sha256:
                raise ValueError(f"it is not the one that was charged in {os.fspath(self.path)!r}")
            with ArrayFile(io.BytesIO(content)) as stored:
                vector = stored.read("vector", stored.declared("vector")[0], np.float64)
                clip_norm, noise = stored.read("state", (2,), np.float64)
        return Release(name, vector, float(clip_norm), float(noise))

    def charges_up_to(self, name: str) -> tuple[Charge, ...]:
        """Of the rounds up to the one with this release."""
        before = takewhile(lambda entry: entry.release != name, self._booked)
        own = (entry for entry in self._booked if entry.release == name)
        return _together({entry: self._booked[entry] for entry in (*before, *own)})

    @contextmanager
    def _sole_writer(self, path: Path) -> Iterator[None]:
        """The lock; DpemError for whatever keeps files from being written."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with sole_writer(path, PATIENCE):
                yield
        except DpemError:
            raise
        except (OSError, ValueError) as error:  # ValueError: a path with a null character
            raise DpemError(f"privacy ledger {os.fspath(path)!r} cannot be written: {error}") from None

    def _read_again(self, path: Path) -> tuple[Counter[Entry], frozenset[str]]:
        """What the file holds now, with others' charges; DpemError if it lacks what is known to have been charged."""
        now, announced = _read(path)
        if not self._booked <= now:
            raise DpemError(
                f"privacy ledger {os.fspath(path)!r} was deleted or changed while in use: {self.rounds} rounds have "
                f"been charged, and it books {now.total()}; put it back, or go on in another folder"
            )
        return now, announced

    def _book(self, path: Path, charge: Charge, release: Release | None) -> None:
        entry = Entry(charge)
        if release is not None:
            if any(other.release == release.name for other in self._booked):
                raise DpemError(f"{release.name!r} has been released by another program: start this one again")
            self._announced |= {release.name}
            _write(path, self._booked, self._announced)
            entry = Entry(charge, release.name, _write_release(_file_of(path, release.name), release))
        booked, announced = self._booked + Counter([entry]), self._announced - {entry.release}
        try:
            _write(path, booked, announced)
        except OSError:
            if release is not None:
                _file_of(path, release.name).unlink(missing_ok=True)
            raise
        self._booked, self._announced = booked, announced


def _together(booked: Mapping[Entry, int]) -> tuple[Charge, ...]:
    rounds: Counter[Charge] = Counter()
    for entry, number in booked.items():
        rounds[entry.charge] += number
    return tuple(replace(charge, rounds=number) for charge, number in rounds.items())


def _folder_of(path: Path) -> Path:
    return path.with_name(f"{path.stem}-releases")


def _file_of(path: Path, name: str) -> Path:
    return _folder_of(path) / f"{file_name(name)}.npz"


def _write_release(file: Path, release: Release) -> str:
    """Write the file, and remove what killed programs have left half written; returns its hash."""
    buffer = io.BytesIO()
    np.savez(buffer, vector=release.vector, state=np.array([release.clip_norm, release.noise]))
    file.parent.mkdir(exist_ok=True)
    for dead in file.parent.glob(".*.partial"):  # nobody else writes here now
        dead.unlink()
    with whole_file(file) as partial:
        partial.write_bytes(buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def _write(path: Path, booked: Counter[Entry], announced: frozenset[str]) -> None:
    charges = []
    for entry, number in booked.items():
        named = {} if entry.release is None else {"release": entry.release, "sha256": entry.sha256}
        charges.append(asdict(replace(entry.charge, rounds=number)) | named)
    write_json(path, {"format": FORMAT, "charges": charges, "announced": sorted(announced)})


def _read(path: Path) -> tuple[Counter[Entry], frozenset[str]]:
    """Rounds that are booked, and names of releases that are announced; DpemError if there are other releases."""
    with reading("privacy ledger", path):
        # Before the file is read: what another program releases meanwhile is announced there by then.
        releases = set(_folder_of(path).glob("*.npz"))
        there = path.exists()
        booked, announced = _parsed(read_json(path)) if there else (Counter[Entry](), frozenset[str]())
    known = announced.union(entry.release for entry in booked if entry.release is not None)
    if lost := releases - {_file_of(path, name) for name in known}:
        what = "does not book" if there else "is missing, which booked"
        raise DpemError(
            f"privacy ledger {os.fspath(path)!r} {what} {len(lost)} of the releases in "
            f"{os.fspath(_folder_of(path))!r}: put it back as it was, or begin anew in another folder; "
            "what nodes spend in both adds up"
        )
    return booked, announced


class _Charged(Part):
    model_config = ConfigDict(extra="forbid")

    sample_rate: float = Field(gt=0, le=1)
    noise_multiplier: float = Field(ge=0)
    private: bool = True
    rounds: int = Field(default=1, ge=1, le=MOST_ROUNDS)
    release: str | None = None
    sha256: str | None = None

    @model_validator(mode="after")
    def _one_round_has_one_file(self) -> _Charged:
        if (self.release is None) != (self.sha256 is None) or (self.release is not None and self.rounds != 1):
            raise ValueError(f"release {self.release!r} with hash {self.sha256!r} is not of one round")
        return self


class _Stored(Part):
    format: Literal["dpem-privacy-ledger-2", "dpem-privacy-ledger-1"]  # the older one knows no releases
    charges: list[_Charged]
    announced: list[str] = Field(default_factory=list)


def _parsed(stored: dict[str, Any]) -> tuple[Counter[Entry], frozenset[str]]:
    known, booked = checked(_Stored, stored, "it"), Counter[Entry]()
    for each in known.charges:
        charge = Charge(each.sample_rate, each.noise_multiplier, each.private)
        booked[Entry(charge, each.release, each.sha256)] += each.rounds
    names = [each.release for each in known.charges if each.release is not None]
    if repeated := [name for name, times in Counter(names).items() if times > 1]:
        raise ValueError(f"release {repeated[0]!r} is not of one round")
    return booked, frozenset(known.announced)
