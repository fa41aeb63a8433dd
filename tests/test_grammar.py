"""The grammar of the command line: what every command explains, what it takes as a number, how old spellings answer."""

from __future__ import annotations

import inspect
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Annotated, Any

import pytest
from cyclopts import App

from dpem_env import cli
from dpem_env.cli import EXAMPLES, app
from dpem_env.support import options, seeding
from support.command_line import complaint, dpem

ROOT = Path(__file__).resolve().parents[1]


def commands(of: App, *names: str) -> Iterator[tuple[tuple[str, ...], App]]:
    """All commands with something to do, by their words."""
    for name in of:
        if not name.startswith("-"):
            each = of[name]
            if each.default_command is not None:
                yield (*names, name), each
            yield from commands(each, *names, name)


COMMANDS = dict(commands(app()))
NAMES = [" ".join(words) for words in COMMANDS]


def asked_for(argv: list[str]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The command that would be called, and with what."""
    command, given, _ = app().parse_args(argv, exit_on_error=False, print_error=False)
    return command, given.arguments


def test_all_commands_are_known() -> None:
    assert len(NAMES) == 28
    assert {"run", "train", "federate node", "submit", "submit check", "reproduce"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_command_explains_itself_and_every_option(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert dpem(*name.split(), "--help") == 0
    said = capsys.readouterr().out
    assert said.startswith(f"Usage: dpem {name}")
    for argument in COMMANDS[tuple(name.split())].assemble_argument_collection(parse_docstring=True):
        if not argument.parse or argument.children:
            continue
        [line] = [line for line in said.splitlines() if f" {argument.names[0]} " in line and "│" in line]
        assert argument.parameter.help, argument.names
        told = any(word in line for word in ("[required]", "(default: ", "[default: "))
        assert told, line


@pytest.mark.parametrize("of", [[], ["federate"], ["submit"]], ids=" ".join)
def test_commands_of_commands_are_listed(of: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert dpem(*of, "--help") == 0
    said = capsys.readouterr().out
    assert all(f"│ {words[-1]} " in said for words in map(str.split, NAMES) if words[:-1] == of)


def examples() -> list[str]:
    """Commands that are shown as examples, as one reads them."""
    texts = [EXAMPLES, *(inspect.getdoc(command.default_command) or "" for command in COMMANDS.values())]
    lines = [line for text in texts for line in text.replace("\\\n", "").splitlines()]
    return [line.strip() for line in lines if line.startswith("  dpem ")]


def test_examples_of_the_help_are_commands_and_fit_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(examples()) == 38
    for example in examples():
        assert asked_for(shlex.split(example.split(">")[0])[1:])
    shown = ""
    for name in ("", *NAMES):
        dpem(*name.split(), "--help")
        shown += capsys.readouterr().out
    assert set(examples()) == {
        line.strip() for line in shown.replace("\\\n", "").splitlines() if line.startswith("  dpem ")
    }


def test_help_loads_nothing_heavy() -> None:
    heavy = ["torch", "numba", "numpy", "scipy", "pandas", "pydantic", "gymnasium", "pettingzoo", "networkx", "flwr"]
    code = (
        "import sys; sys.argv[0] = 'dpem'; from dpem_env.cli import main; main(['--help']); main(['train', '--help']); "
        f"print(*[name for name in {heavy} if name in sys.modules], file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stderr.split() == []


# --- numbers ----------------------------------------------------------------------------------------------------------

RUN = ["run", "--scenario", "chain3-v0", "--policy", "central-reactive", "--out", "never"]
TRAIN = ["train", "--scenario", "chain3-v0", "--out", "never"]


@pytest.mark.parametrize(
    ("text", "number"), [("10000", 10_000), ("1e4", 10_000), ("10_000", 10_000), ("1.5e1", 15), ("7.0", 7)]
)
def test_counts_may_be_written_as_people_do(text: str, number: int) -> None:
    seeds = asked_for([*RUN, "--seeds", text])[1]["seeds"]
    assert (seeds, type(seeds)) == (number, int)


def test_counts_are_exact() -> None:
    assert asked_for([*RUN, "--topology", "9223372036854775807"])[1]["topology"] == 2**63 - 1
    assert asked_for([*TRAIN, "--timesteps", "1e15"])[1]["timesteps"] == 10**15
    assert options.LARGEST_SEED == seeding.SEEDS - 1


NO_COUNTS = ("1.5", "nan", "inf", "1e7", "1e999999", "snan", "-inf", "", "0x10", "many")
NO_DELAYS = ("nan", "inf", "-1", "x")
COUNT = "expected a whole number from 1 to 1,000,000"


@pytest.mark.parametrize(
    ("argv", "fragment"),
    [
        *(([*RUN, "--seeds", text], f"--seeds is {text!r}; {COUNT}") for text in NO_COUNTS),
        *(([*RUN, "--delay", text], f"--delay is {text!r}; expected seconds >= 0") for text in NO_DELAYS),
        ([*TRAIN, "--timesteps", "1.5"], "--timesteps is '1.5'; expected a whole number from 1 to 1,000,000,000,000,"),
        ([*TRAIN, "--learn.slots", "1.5"], "--learn.slots is '1.5'; expected a whole number"),
        ([*TRAIN, "--learn.discount", "nan"], "--learn.discount is 'nan'; expected a number"),
        ([*TRAIN, "--learn.discount", "2"], "hyperparameter discount is 2.0; expected a number above 0 to 1"),
        ([*TRAIN, "--learn.warm-start", "now"], 'Invalid value "now" for --learn.warm-start. Choose from'),
        ([*TRAIN, "--federate.epsilon", "inf"], "--federate.epsilon is 'inf'; expected a number"),
        ([*TRAIN, "--validation-episodes", "-1"], "--validation-episodes is '-1'; expected a whole number from 0"),
    ],
    ids=str,
)  # fmt: skip
def test_numbers_are_checked_at_the_border(
    argv: list[str], fragment: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert fragment in complaint(capsys, *argv)
    assert not list(tmp_path.iterdir())


# --- spellings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "answer"),
    [
        (
            ["benchmark", "quick", "--policies", "a,b", "--seeds", "1", "--out", "never"],
            "dpem benchmark: error: --policies is now --policy, given once per policy: --policy a --policy b",
        ),
        (
            ["tune", "--scenario", "x", "--policies=local-predictive,ppo:my runs", "--out", "never"],
            "dpem tune: error: --policies is now --policy, given once per policy: --policy local-predictive "
            "--policy 'ppo:my runs'",
        ),
        (
            ["benchmark", "quick", "--policy", "a", "--forecasters", "oracle,none", "--seeds", "1", "--out", "never"],
            "dpem benchmark: error: --forecasters is now --forecaster, given once per forecaster: --forecaster oracle "
            "--forecaster none",
        ),
        ([*TRAIN, "--learn", "discount=0.99"], "dpem train: error: --learn discount=0.99 is now --learn.discount 0.99"),
        (
            [*TRAIN, "--federate=server_lr=3"],
            "dpem train: error: --federate server_lr=3 is now --federate.server-lr 3",
        ),
        (["curve", "--runs", "a=b", "--out", "never"], "Did you mean --run instead of --runs?"),
        ([*RUN, "--sedes", "3"], "Unknown option: --sedes. Did you mean --seeds?"),
        ([*RUN, "--polcy", "3"], "Unknown option: --polcy. Did you mean --policy?"),
        (["benchmark", "quick", "--policy", "a,b", "--seeds", "1", "--out", "never"], "name each by itself"),
        ([*RUN, "--scenario", "star8-v0"], "Parameter --scenario specified multiple times"),
        ([*RUN, "--topology", "1", "--topology", "2"], "Parameter --topology specified multiple times"),
        ([*RUN, "stray"], "'stray' is one argument too many"),
        (["rum"], 'Unknown command "rum". Did you mean "run"?'),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_other_spellings_answer_with_the_right_one(
    argv: list[str], answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert answer in complaint(capsys, *argv)


def test_what_is_answered_is_taken() -> None:
    command, given = asked_for(
        [*TRAIN, "--learn.discount", "0.99", "--federate.server-lr", "3", "--learn.annealed=false"]
    )
    assert command.__name__ == "train"
    assert given["learn"] == {"discount": 0.99, "annealed": False}
    assert given["federate"] == {"server_lr": 3.0}
    hidden = ["--learn.hidden-blocks", "forecast", "--learn.hidden-blocks", "topology"]
    assert asked_for([*TRAIN, *hidden])[1]["learn"] == {"hidden_blocks": ("forecast", "topology")}


def test_only_what_is_typed_differs_from_a_preset() -> None:
    from dpem_agents.ppo.hyperparameters import PRESETS, Hyperparameters, changed

    assert "learn" not in asked_for(TRAIN)[1]
    learn = asked_for([*TRAIN, "--learn.clip", "0.1"])[1]["learn"]
    assert changed(PRESETS["federated"], **learn).hidden == PRESETS["federated"].hidden != Hyperparameters().hidden


@dataclass
class Cooling:
    """Something with options."""

    power: Annotated[float, "of the pump"] = 2.0


def test_options_of_a_dataclass_tell_the_defaults_of_presets(capsys: pytest.CaptureFixture[str]) -> None:
    cooling = options.typed(Cooling, {"weak": Cooling(1.0), "strong": Cooling(), "usual": Cooling()}, "Cooling")

    def cool(*, cooling) -> None:  # type: ignore[no-untyped-def]
        print(cooling)

    cool.__annotations__["cooling"] = cooling
    lab = options.commands("lab", "A laboratory.", {"cool": cool})
    lab(["cool", "--cooling.power", "3"], result_action="return_value")
    assert capsys.readouterr().out == "{'power': 3.0}\n"
    lab.help_print(["cool"])
    said = " ".join(capsys.readouterr().out.split())
    assert "--cooling.power X of the pump (default: weak 1.0, strong and usual 2.0)" in said


def test_a_command_that_cannot_be_loaded_is_told_of_and_others_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = EntryPoint("gone", "dpem_env.nowhere:gone", "dpem_env.commands")
    monkeypatch.setattr(cli, "announced", lambda group: {"gone": gone})
    assert cli.main(["show", "chain3-v0"]) == 0
    said = capsys.readouterr()
    assert "chain3-v0" in said.out
    assert said.err.startswith("dpem: warning: command 'gone' needs a package that is not installed: ")
    assert len(said.err.splitlines()) == 1
