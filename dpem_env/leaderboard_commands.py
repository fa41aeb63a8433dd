"""``dpem submit``: the leaderboard without a server. Light to import, as `dpem_env.commands`."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated, Literal

from dpem_env.support.options import (
    A_PATH,
    SECONDS,
    File,
    Folder,
    Out,
    Seed,
    Trusted,
    Tunings,
    Workers,
    commands,
    told,
)

Submitted = Annotated[Folder, told("a folder that dpem submit has written")]


def play(
    *,
    policy: Annotated[
        str, told("what plays: a name, FILE.py:NAME, MODEL.zip, a training; LABEL= before it", metavar="[LABEL=]WHAT")
    ],
    trust: Trusted = (),
    track: Annotated[
        Literal["decentralized", "central", "unrestricted"] | None,
        told("what it may know (default: decentralized for local policies, else central)"),
    ] = None,
    delay: Annotated[
        float | None, SECONDS, told("control delay on track central in s: 0, 0.5 or 1 (default: none)")
    ] = None,
    beacon: Annotated[
        str | None,
        told("play seeds that follow from this value of a randomness beacon (default: held-out ones)", metavar="HEX"),
    ] = None,
    trial: Annotated[bool, told("play a few episodes only, to see that all works; dpem submit check says so")] = False,
    tuned: Tunings = None,
    workers: Workers = 1,
    out: Out,
) -> int:
    r"""Play the leaderboard's evaluation and write a submission; commands that check it and make the table.

    The same scenarios, seeds and control delays for everybody (docs/leaderboard.md): 15 episodes each of mesh20-v0,
    surfnet-v0 and mesh100-v0. --out gets card.json, which says who played what and with which outcome, and the log of
    every episode, from which dpem submit check plays it again. Ctrl-C keeps what is finished; the same command again
    plays the rest.

      dpem submit --policy me=./mine.py:Rule --trial --out trial
      dpem submit --policy central-maxweight --delay 0.5 --tuned shipped \
                  --out submission
    """
    from dpem_env.experiments.submission import make_submission, submit

    plan = make_submission(policy, out, track=track, delay=delay, beacon=beacon, trial=trial, tuned=tuned, trust=trust)
    return submit(plan, out, workers)


def check(
    submission: Submitted,
    /,
    *,
    policy: Annotated[
        str | None, told("where the policy is to be found here (default: where the card says)", metavar="WHAT")
    ] = None,
    trust: Trusted = (),
    whole: Annotated[bool, told("ask every node what it decides in every slot: hours")] = False,
    seed: Annotated[Seed | None, told("of the sample of nodes and episodes (default: drawn anew, and told)")] = None,
    card: Annotated[File | None, told("also write the checked card there (default: do not)")] = None,
) -> int:
    """Verify a submission: its card, every episode, and that its agents decide by themselves.

    Compare the card with the declaration, play every episode again from its log and compare all outcomes bit for bit,
    and work out the scores. Then agents are asked again what they decide, each in a process of its own that is given
    only what it may know: on track decentralized nodes their own row, on track central a controller its late view.
    What is wrong is told in a line each, and the exit code is 1. If nothing is, the card gets a note of what was
    checked. The policy's code runs here: read it first.

      dpem submit check submission
    """
    from dpem_env.experiments.cards import CARD
    from dpem_env.experiments.submission_check import Claim, Sample, check, seal, slots_of
    from dpem_env.report.tables import progress
    from dpem_env.support.files import make_file_writable, write_json

    sample = Sample(secrets.randbelow(2**32) if seed is None else seed, whole)
    claim = Claim.read(submission, policy, trust)
    if card is not None:
        make_file_writable(card, "--card")
    with progress() as bar:
        task = bar.add_task("", total=slots_of(claim, sample))
        verdict = check(
            claim,
            sample,
            on_episode=lambda what: bar.update(task, description=what),
            on_slot=lambda: bar.advance(task),
        )
    for line in verdict.lines():
        print(line)
    if seed is None and not whole:
        print(f"--seed {sample.seed} draws the same sample again")
    if verdict.complaints:
        return 1
    for path in [submission / CARD, *([] if card is None else [card])]:
        write_json(path, seal(claim, verdict))
        print(f"wrote {path}")
    return 0


def table(
    card: Annotated[tuple[Path, ...], A_PATH, told("cards, submissions, or folders of cards", metavar="CARD")],
    /,
) -> int:
    """Print the leaderboard of these cards, as Markdown.

    A row per card, by track and control delay, the highest mean delivery rate first. What was not checked says so.

      dpem submit table baselines/results/leaderboard trial
    """
    from dpem_env.experiments.cards import cards_in, leaderboard, read_card

    print(leaderboard([read_card(path) for path in cards_in(card)]), end="")
    return 0


submit = commands("submit", play.__doc__ or "", {"check": check, "table": table}, help_epilogue="")
submit.default(play)
