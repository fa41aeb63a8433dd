"""The `dpem` command as tests call it: its exit code, its complaints, and Ctrl-C in the middle."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest

from dpem_baselines.local import LocalReactive
from dpem_env.cli import main


def dpem(*argv: str) -> int:
    """Exit code of the command, however it ends."""
    try:
        return main(argv)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1


BLOCK = re.compile(r"^```(\w*) ?(\S*)\n(.*?)^```", re.DOTALL | re.MULTILINE)  # language, file, content


def commands(page: str) -> list[str]:
    """What a page tells to run, in its order, a line each: `dpem` in blocks of the console, without comments."""
    blocks = [content for language, _, content in BLOCK.findall(page) if language in ("", "console")]
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    told = (re.sub(r"\s#.*", "", line).strip() for line in lines)
    return [line for line in told if line.startswith("dpem ")]


def given(*policies: str) -> list[str]:
    """Policies as options."""
    return [word for policy in policies for word in ("--policy", policy)]


def but(usual: Sequence[str], *argv: str) -> list[str]:
    """The usual options, but for those that are given here; --policy and --set add to them."""
    others = {word.partition("=")[0] for word in argv if word.startswith("--")} - {"--policy", "--set"}
    pairs = [usual[at : at + 2] for at in range(0, len(usual), 2)]
    return [*(word for pair in pairs if pair[0] not in others for word in pair), *argv]


def complaint(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line that bad input is answered with."""
    code = dpem(*argv)
    said = capsys.readouterr()
    assert code == 2
    assert said.out == ""
    assert said.err.startswith("dpem")
    assert said.err.count("\n") == 1
    assert said.err.endswith("\n")
    return said.err


class Interrupt:
    """Stands in for `LocalReactive.act` and presses Ctrl-C at its n-th call."""

    def __init__(self, calls: int) -> None:
        self.left = calls
        self.act = LocalReactive.act

    def __call__(self, *arguments: Any) -> Any:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return self.act(LocalReactive(), *arguments)
