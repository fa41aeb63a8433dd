"""The privacy ledger: what was released was charged, what was charged can be had again, whatever stops the program."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from federated_rounds import after_rounds, averager, config, play
from killing import Killed, killed_at

from dpem_agents.federated import AdaptiveClipping, BudgetExhausted, DPConfig, FederatedAverager, Ledger, ledger
from dpem_agents.federated.accounting import Charge
from dpem_agents.federated.ledger import Release
from dpem_env.support.errors import DpemError
from dpem_env.support.files import sole_writer

OLD = b"""{"format": "dpem-privacy-ledger-1", "charges": [
  {"sample_rate": 1.0, "noise_multiplier": 2.616495235207007, "private": true, "rounds": 19}]}"""
ROUNDS = 3
SEEDED = config(noise_seed=7, adaptive=AdaptiveClipping(count_noise=1.0), sample_rate=0.5)
UNNAMED = b'{"format": "dpem-privacy-ledger-2", "charges": [], "announced": [3]}'
SECRET = config(adaptive=AdaptiveClipping(count_noise=1.0), max_epsilon=config().epsilon(ROUNDS) + 1e-6)


def training(folder: Path, dp: DPConfig, each: Callable[[FederatedAverager], object] = lambda made: None) -> Any:
    """Three rounds, as a program plays them that may be started again."""
    made = averager(dp, 3, ledger=Ledger(folder / "ledger.json"), training="first")
    while made.rounds < ROUNDS:
        if made.repeat() is None:
            play(made, {node: np.full(3, 0.1 * node) + made.weights for node in range(10)})
        each(made)
    return made


def refusal(call: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises(DpemError) as told:
        call(*arguments)
    assert "\n" not in str(told.value)
    return str(told.value)


def releases(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted((folder / "ledger-releases").glob("*.npz"))}


# Whatever stops the program


@pytest.mark.parametrize("dp", [SEEDED, SECRET], ids=["seeded", "secret"])
def test_killed_at_any_moment_it_goes_on_and_spends_what_it_would_have(dp: DPConfig, tmp_path: Path) -> None:
    straight = training(tmp_path / "straight", dp)
    moments = 0
    for moment in count(1):
        folder, seen = tmp_path / str(moment), {}

        def see(made: FederatedAverager, seen: dict[int, Any] = seen) -> None:
            """What was handed out after a round is what it was, however often it is handed out."""
            outcome = (made.weights.tobytes(), made.clip_norm)
            assert seen.setdefault(made.rounds, outcome) == outcome

        try:
            with killed_at(moment):
                training(folder, dp, see)
            break  # it came to its end before
        except Killed:
            moments += 1
        made = training(folder, dp, see)
        assert (
            made.ledger.charges == straight.ledger.charges == (Charge(dp.sample_rate, 1.0, dp.noise_seed is None, 3),)
        )
        assert sorted(releases(folder)) == [f"first-{number}.npz" for number in (1, 2, 3)]
        if dp is SEEDED:
            assert np.array_equal(made.weights, straight.weights)
            assert made.clip_norm == straight.clip_norm
            assert releases(folder) == releases(tmp_path / "straight")
    assert moments >= ROUNDS * 9  # nine in each round: three files, each synced, renamed, its folder synced


def test_a_program_that_is_killed_again_and_again_comes_to_its_end(tmp_path: Path) -> None:
    straight, kills = training(tmp_path / "straight", SEEDED), 0
    for moment in count(1):
        try:
            with killed_at(moment):
                made = training(tmp_path / "killed", SEEDED)
            break
        except Killed:
            kills += 1
    assert kills >= 5
    assert np.array_equal(made.weights, straight.weights)
    assert releases(tmp_path / "killed") == releases(tmp_path / "straight")


def test_a_round_is_on_disk_before_it_is_handed_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    usual = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: done.append(os.readlink(f"/proc/self/fd/{file}")) or usual(file))
    monkeypatch.setattr(ledger, "_write", _noting(ledger._write, done, "ledger begins"))
    training(tmp_path, SEEDED, lambda made: done.append("handed out"))
    names = [Path(name).name for name in done[: done.index("handed out")]]
    of_ledger = ["ledger begins", "partial", tmp_path.name]
    assert [name.rpartition(".")[2] for name in names] == [*of_ledger, "partial", "ledger-releases", *of_ledger]


def test_a_full_disk_between_release_and_ledger_charges_nothing_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = ledger.write_json

    def full(path: Path, data: dict[str, Any]) -> None:
        if data["charges"]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        usual(path, data)  # the announcement

    made = averager(SECRET, 3, ledger=Ledger(tmp_path / "ledger.json"), training="first")
    made.sample(range(10))
    monkeypatch.setattr(ledger, "write_json", full)
    assert "No space left on device" in refusal(made.aggregate, {})
    assert not made.weights.any()
    assert (made.ledger.rounds, made.rounds, releases(tmp_path)) == (0, 0, {})
    monkeypatch.setattr(ledger, "write_json", usual)
    assert made.aggregate({})[0].all()
    assert Ledger(tmp_path / "ledger.json").rounds == 1


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    made = averager(SECRET, 3, ledger=Ledger(tmp_path / "new" / "ledger.json"), training="first")
    (tmp_path / "new").write_text("")
    made.sample(range(10))
    assert "cannot be written" in refusal(made.aggregate, {})
    assert made.rounds == 0


# What is taken over


def test_a_round_that_was_released_is_reported_again_as_it_was_without_what_is_for_the_operator(tmp_path: Path) -> None:
    first: list[Any] = []
    path = tmp_path / "ledger.json"
    made = averager(SECRET, 3, ledger=Ledger(path), training="first")
    for _ in range(ROUNDS):
        first.append(play(made, {0: np.ones(3)})[1])
    again = averager(SECRET, 3, ledger=Ledger(path), training="first")
    for report in first:
        repeated = again.repeat()
        assert repeated is not None
        assert repeated.public() == report.public()
        assert repeated.operator is None
    assert again.repeat() is None
    assert np.array_equal(again.weights, made.weights)
    with pytest.raises(BudgetExhausted):
        again.sample(range(10))


def test_a_released_round_is_not_played_again(tmp_path: Path) -> None:
    training(tmp_path, SECRET)
    made = averager(SECRET, 3, ledger=Ledger(tmp_path / "ledger.json"), training="first")
    assert "round 1 was released before a restart: take it over by repeat" in refusal(made.sample, range(10))


def test_other_trainings_with_the_same_ledger_are_charged_on_top(tmp_path: Path) -> None:
    training(tmp_path, SEEDED)
    other = averager(SEEDED, 3, ledger=Ledger(tmp_path / "ledger.json"), training="second")
    assert other.repeat() is None
    assert play(other, {})[1].round == 4
    assert after_rounds(SEEDED, 1, Ledger(tmp_path / "ledger.json")).ledger.rounds == 5  # without a name
    assert Ledger(tmp_path / "ledger.json").unnamed == 1


def test_a_release_of_another_size_or_that_was_changed_is_refused(tmp_path: Path) -> None:
    training(tmp_path, SEEDED)
    wider = averager(SEEDED, 4, ledger=Ledger(tmp_path / "ledger.json"), training="first")
    assert r"has shape (3,); expected (4,)" in refusal(wider.repeat)
    file = tmp_path / "ledger-releases" / "first-1.npz"
    made = averager(SEEDED, 3, ledger=Ledger(tmp_path / "ledger.json"), training="first")
    file.write_bytes((tmp_path / "ledger-releases" / "first-2.npz").read_bytes())
    assert "it is not the one that was charged" in refusal(made.repeat)
    file.unlink()
    assert "No such file" in refusal(made.repeat)
    assert made.rounds == 0


def test_names_of_trainings_can_be_any_text(tmp_path: Path) -> None:
    for name in ("../../escaped", "a/b", "", "é" * 300, "*"):
        made = averager(SEEDED, 3, ledger=Ledger(tmp_path / "ledger.json"), training=name)
        play(made, {})
        again = averager(SEEDED, 3, ledger=Ledger(tmp_path / "ledger.json"), training=name)
        assert again.repeat() is not None
        assert np.array_equal(again.weights, made.weights)
    assert {path.name for path in tmp_path.iterdir()} == {"ledger.json", ".ledger.json.lock", "ledger-releases"}
    assert len(releases(tmp_path)) == 5


# Several programs


def test_programs_that_charge_at_once_are_all_counted(tmp_path: Path) -> None:
    def charge(name: str) -> None:
        own = Ledger(tmp_path / "ledger.json")
        for number in range(10):
            own.charge(SECRET_OPEN, Release(f"{name}-{number}", np.ones(2), 1.0, 1.0))

    threads = [Thread(target=charge, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Ledger(tmp_path / "ledger.json").rounds == 30


SECRET_OPEN = config()


def test_a_budget_is_what_the_file_holds_and_not_what_it_held_at_the_start(tmp_path: Path) -> None:
    ours, theirs = (averager(SECRET, 3, ledger=Ledger(tmp_path / "ledger.json"), training=name) for name in "ab")
    for _ in range(ROUNDS):
        play(theirs, {})
    ours.sample(range(10))
    with pytest.raises(BudgetExhausted, match="round 4 would take"):
        ours.aggregate({})
    assert not ours.weights.any()
    assert list(releases(tmp_path)) == ["b-1.npz", "b-2.npz", "b-3.npz"]


def test_the_same_training_twice_at_once_releases_no_round_twice(tmp_path: Path) -> None:
    one, two = (averager(SEEDED, 3, ledger=Ledger(tmp_path / "ledger.json"), training="first") for _ in range(2))
    one.sample(range(10))
    two.sample(range(10))
    one.aggregate({})
    before = releases(tmp_path)
    assert "'first-1' has been released by another program" in refusal(two.aggregate, {})
    assert releases(tmp_path) == before
    assert Ledger(tmp_path / "ledger.json").rounds == 1


def test_who_waits_in_vain_for_the_lock_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "PATIENCE", 0.1)
    with sole_writer(tmp_path / "ledger.json"):
        assert "another process is writing" in refusal(Ledger(tmp_path / "ledger.json").charge, SEEDED)


# What the file may be


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("first", r"(does not book 1|is missing, which booked 2) of the releases in"),
        (None, r"was deleted or changed while in use: 2 rounds have been charged, and it books [01];"),
    ],
    ids=["with releases", "without"],
)
def test_a_ledger_that_is_deleted_or_set_back_while_in_use_is_not_taken_for_what_was_spent(
    name: str | None, line: str, tmp_path: Path
) -> None:
    path = tmp_path / "ledger.json"
    made = averager(SEEDED, 3, ledger=Ledger(path), training=name)
    play(made, {})
    after_one = path.read_bytes()
    play(made, {})
    made.sample(range(10))
    for text in (after_one, None):
        path.unlink()
        if text is not None:
            path.write_bytes(text)
        assert re.search(line, refusal(made.aggregate, {}))
        path.write_bytes(after_one)
    assert made.rounds == 2


@pytest.mark.parametrize("kept", [0, 1, 2, None], ids=["emptied", "two back", "one back", "deleted"])
def test_a_ledger_that_is_deleted_or_set_back_between_two_programs_is_not_taken_for_what_was_spent(
    kept: int | None, tmp_path: Path
) -> None:
    path = tmp_path / "ledger.json"
    training(tmp_path, SEEDED)
    stored = json.loads(path.read_text())
    path.unlink()
    if kept is not None:
        path.write_text(json.dumps(stored | {"charges": stored["charges"][:kept]}))
    before = releases(tmp_path)
    line = refusal(training, tmp_path, SEEDED)
    what = "is missing, which booked 3" if kept is None else f"does not book {3 - kept}"
    assert f"{what} of the releases in" in line
    assert "put it back as it was, or begin anew in another folder" in line
    assert releases(tmp_path) == before
    path.write_text(json.dumps(stored))
    assert training(tmp_path, SEEDED).ledger.rounds == ROUNDS


def test_a_ledger_that_is_deleted_while_another_program_begins_is_refused_at_its_first_round(tmp_path: Path) -> None:
    other = averager(SEEDED, 3, ledger=Ledger(tmp_path / "ledger.json"), training="second")
    other.sample(range(10))
    training(tmp_path, SEEDED)
    (tmp_path / "ledger.json").unlink()
    assert "is missing, which booked 3 of the releases in" in refusal(other.aggregate, {})
    assert sorted(releases(tmp_path)) == ["first-1.npz", "first-2.npz", "first-3.npz"]


def test_a_program_that_was_killed_in_a_round_leaves_others_their_rounds_and_plays_its_own_again(
    tmp_path: Path,
) -> None:
    with killed_at(8), pytest.raises(Killed):  # the release is there, its charge is not
        training(tmp_path, SEEDED)
    assert list(releases(tmp_path)) == ["first-1.npz"]
    assert Ledger(tmp_path / "ledger.json").rounds == 0
    play(averager(SEEDED, 3, ledger=Ledger(tmp_path / "ledger.json"), training="second"), {})
    assert training(tmp_path, SEEDED).ledger.rounds == 1 + ROUNDS


def test_ledgers_of_the_first_version_are_read_and_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    path.write_bytes(OLD)
    before = Ledger(path)
    assert (before.rounds, before.unnamed, before.private) == (19, 19, True)
    [charge] = before.charges
    assert charge.noise_multiplier == 2.616495235207007
    made = averager(config(), 3, ledger=before, training="first")
    play(made, {})
    again = Ledger(path)
    assert (again.rounds, again.unnamed) == (20, 19)
    assert again.charges == (charge, Charge(1.0, 1.0))
    assert json.loads(path.read_text())["format"] == "dpem-privacy-ledger-2"


@pytest.mark.parametrize(
    "charge",
    [
        '{"sample_rate": 1, "noise_multiplier": 1, "rounds": %s}' % ("9" * 400),
        '{"sample_rate": 1, "noise_multiplier": 1, "rounds": %s}' % ("9" * 300),
        '{"sample_rate": 1, "noise_multiplier": %s}' % ("9" * 400),
        '{"sample_rate": 1, "noise_multiplier": 1e400}',
        '{"sample_rate": 1, "noise_multiplier": NaN}',
        '{"sample_rate": true, "noise_multiplier": 1}',
        '{"sample_rate": 1, "noise_multiplier": 1, "rounds": true}',
        '{"sample_rate": 1, "noise_multiplier": 1, "rounds": 1e3}',
        '{"sample_rate": 1, "noise_multiplier": 1, "release": "a"}',
        '{"sample_rate": 1, "noise_multiplier": 1, "sha256": "a"}',
        '{"sample_rate": 1, "noise_multiplier": 1, "release": 3, "sha256": "a"}',
        '{"sample_rate": 1, "noise_multiplier": 1, "rounds": 2, "release": "a", "sha256": "b"}',
        '{"sample_rate": 1, "noise_multiplier": 1, "release": "a", "sha256": "b"}, '
        '{"sample_rate": 1, "noise_multiplier": 1, "release": "a", "sha256": "c"}',
        '{"sample_rate": 1, "noise_multiplier": 1, "budget": 8}',
        "null",
        "[" * 100_000,
    ],
)
def test_a_crafted_ledger_is_one_line_and_never_empty(charge: str, tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    path.write_text(f'{{"format": "dpem-privacy-ledger-2", "charges": [{charge}]}}')
    assert "privacy ledger" in refusal(Ledger, path)
    for content in (b"\xff\xfe", b"{", b'{"format": "dpem-privacy-ledger-2", "charges": {"a": 1}}', UNNAMED):
        path.write_bytes(content)
        assert "cannot be used" in refusal(Ledger, path)
    path.unlink()
    path.mkdir()
    assert "cannot be used" in refusal(Ledger, path)


def _noting(usual: Callable[..., Any], done: list[str], what: str) -> Callable[..., Any]:
    return lambda *arguments: (done.append(what), usual(*arguments))[1]
