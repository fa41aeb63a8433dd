"""The ``dpem`` command: parse, call, and tell in one line what went wrong."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cyclopts import App, CoercionError, CycloptsError, UnusedCliTokensError

from dpem_env import __version__, commands, leaderboard_commands
from dpem_env.support import options
from dpem_env.support.console import complain, interruptible, lasting_output
from dpem_env.support.errors import DpemError, shown, warnings_told
from dpem_env.support.interrupts import EXIT_INTERRUPTED, INTERRUPTED
from dpem_env.support.plugins import COMMANDS, announced, loaded

if TYPE_CHECKING:
    from rich.console import Console

ABOUT = "Entanglement allocation in quantum networks: run, compare, replay and watch control policies."
EXAMPLES = """\
examples:
  dpem list
      what can be run: scenarios, policies, forecasters; where to get data
  dpem show mesh100-v0 > mine.toml
      a scenario as TOML, to edit and pass to --scenario mine.toml
  dpem run --scenario mesh100-v0 --policy local-reactive \\
           --policy central-reactive --delay 0 --delay 0.5 --out results
      play 5 paired episodes with each policy; table, picture, episode logs
  dpem tune --scenario mesh100-v0 --policy local-predictive \\
            --policy central-maxweight --delay 0 --delay 0.5 --out tuned
      search the policies' options, 16 trials of 3 validation episodes each
  dpem benchmark delay-curve --policy local-predictive \\
                 --policy central-maxweight --seeds 20 --tuned tuned --score \\
                 --out curve
      compare them, tuned, on every control delay; scores beside raw metrics
  dpem replay results/local-reactive-0.parquet
      run an episode again from its log alone and verify every outcome
  dpem watch results/local-reactive-0.parquet --html episode.html
      a page that shows it slot by slot; two logs stand side by side
"""
NOW_REPEATED = {"--policies": "--policy", "--forecasters": "--forecaster"}
NOW_NESTED = ("--learn", "--federate")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 fine, 1 a replay that differs, 2 bad input, 130 interrupted."""
    with lasting_output() as loss:
        code = _answered(sys.argv[1:] if argv is None else list(argv))
        if reason := loss():  # files have what was to be written to them
            complain(f"dpem: error: standard output cannot be written: {reason}")
            code = code or 2
    return code


def _answered(words: list[str]) -> int:
    """The exit code, whatever happens; errors and Ctrl-C are told in one line."""
    try:
        command, given, _ = app().parse_args(words, exit_on_error=False, print_error=False)
        if command.__name__ == "help_print":
            if not {"--help", "-h"} & set(words):
                raise CycloptsError(msg="expected a command", command_chain=words)
            given.arguments["console"] = _wide_enough()
        with interruptible(), warnings_told(lambda line: complain(f"dpem: warning: {line}")):
            return int(command(*given.args, **given.kwargs) or 0)
    except CycloptsError as error:
        called = " ".join(("dpem", *(error.command_chain or ())))
        complain(f"{called}: error: {_renamed(words) or _told(error)} (see {called} --help)")
    except MemoryError as error:
        complain(f"dpem: error: not enough memory for a scenario this big: {error}")
    except DpemError as error:
        complain(f"dpem: error: {error}")
    except OSError as error:
        where = f" ({error.filename!r})" if error.filename is not None else ""
        complain(f"dpem: error: {error.strerror or error}{where}")
    except KeyboardInterrupt as interrupt:
        complain(f"dpem: {interrupt}" if interrupt.args else INTERRUPTED)
        exec("")  # Python dies of a Ctrl-C that came through an exec, unless another has succeeded since
        return EXIT_INTERRUPTED
    return 2


def app() -> App:
    """All commands: those of this package, and what others announce."""
    own: dict[str, Callable[..., int] | App] = {
        "demo": commands.demo,
        "list": commands.list_,
        "show": commands.show,
        "run": commands.run,
        "benchmark": commands.benchmark,
        "tune": commands.tune,
        "forecast": commands.forecast,
        "reproduce": commands.reproduce,
        "table": commands.table,
        "figure": commands.figure,
        "front": commands.front,
        "report": commands.report,
        "replay": commands.replay,
        "watch": commands.watch,
        "submit": leaderboard_commands.submit,
        "cite": commands.cite,
    }
    return options.commands("dpem", ABOUT, own | _others(), version=f"dpem {__version__}", help_epilogue=EXAMPLES)


def _others() -> dict[str, Callable[..., int]]:
    """Commands of other packages; one that cannot be loaded is told of, and the rest goes on."""
    found: dict[str, Callable[..., int]] = {}
    for name, point in announced(COMMANDS).items():
        try:
            found[name] = loaded("command", name, point.load)
        except DpemError as error:
            complain(f"dpem: warning: {error}")
    return found


def _wide_enough() -> Console:
    """The terminal; a narrower one is taken for one of 20 columns, as tables of options need some."""
    from rich.console import Console

    console = Console()
    console.width = max(console.width, 20)
    return console


def _told(error: CycloptsError) -> str:
    """What was given, and what was expected."""
    if isinstance(error, UnusedCliTokensError):
        return f"{shown(' '.join(error.unused_tokens or ()))} is one argument too many"
    if isinstance(error, CoercionError) and error.token and error.msg:
        return f"{error.token.keyword or 'argument'} is {shown(error.token.value)}; {error.msg}"
    return str(error).removeprefix(f'Command "{" ".join(error.command_chain or ())}" ').removesuffix(".")


def _renamed(words: list[str]) -> str | None:
    """What to type in place of an old spelling, if there is one among the words."""
    for word, following in zip(words, [*words, ""][1:], strict=True):
        option, equals, value = word.partition("=")
        value = value if equals else following
        if singular := NOW_REPEATED.get(option):
            each = shlex.join(part for name in value.split(",") for part in (singular, name))
            return f"{option} is now {singular}, given once per {singular[2:]}: {each}"
        if option in NOW_NESTED and "=" in value:
            name, _, chosen = value.partition("=")
            return f"{option} {value} is now {shlex.join((f'{option}.{name}'.replace('_', '-'), chosen))}"
    return None


if __name__ == "__main__":
    raise SystemExit(main())
