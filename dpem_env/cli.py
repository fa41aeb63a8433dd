"""The ``dpem`` command."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from dpem_env import __version__
from dpem_env.experiments.command import add_reproduce
from dpem_env.support.console import complain, interruptible, lasting_output
from dpem_env.support.errors import DpemError, warnings_told
from dpem_env.support.interrupts import EXIT_INTERRUPTED, INTERRUPTED
from dpem_env.support.plugins import COMMANDS, announced

if TYPE_CHECKING:
    from dpem_env.scenarios import Scenario

EXAMPLES = """\
examples:
  dpem list
      what can be run: scenarios, policies, forecasters, and where to get data that is not shipped
  dpem show mesh100-v0 > mine.toml
      a scenario as TOML, to edit and pass to --scenario mine.toml
  dpem run --scenario mesh100-v0 --policy local-reactive --policy central-reactive --delay 0 --delay 0.5 \\
           --seeds 5 --out results
      play 5 paired episodes with each contestant; table, results and picture, and episode logs
  dpem tune --scenario mesh100-v0 --policies local-predictive,central-maxweight --delay 0 --delay 0.5 --out tuned
      search the policies' options, 16 trials of 3 validation episodes each
  dpem benchmark delay-curve --policies local-predictive,central-maxweight --seeds 20 --tuned tuned --score --out curve
      compare them, tuned, on every control delay; scores beside the raw metrics
  dpem replay results/local-reactive-0.parquet
      run an episode again from its log alone and verify every outcome bit for bit
"""


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        complain(f"{self.prog}: error: {message} (see {self.prog} --help)")
        self.exit(2)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 fine, 1 a replay that differs, 2 bad input, 130 interrupted."""
    with lasting_output() as loss:
        code = _answered(argv)
        if reason := loss():  # files have what was to be written to them
            complain(f"dpem: error: standard output cannot be written: {reason}")
            code = code or 2
    return code


def _answered(argv: Sequence[str] | None) -> int:
    """The exit code, whatever happens; errors and Ctrl-C are told in one line."""
    try:
        arguments = _parser().parse_args(argv)
        with interruptible(), warnings_told(lambda line: complain(f"dpem: warning: {line}")):
            return int(arguments.run(arguments))
    except SystemExit as end:  # argparse has said all
        return end.code if isinstance(end.code, int) else 2
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


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="dpem",
        description="Entanglement allocation in quantum networks: run, compare and replay control policies.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"dpem {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=_Parser)
    for add in (_add_list, _add_show, _add_run, _add_benchmark, _add_tune, _add_forecast, add_reproduce):
        add(commands)
    for _, command in sorted(announced(COMMANDS).items()):
        command.load()(commands)
    _add_replay(commands)
    return parser


def typed_path(text: str) -> Path:
    """A path of a folder or file, from what was typed; an empty one is of a variable that a shell does not know."""
    if not text:
        raise argparse.ArgumentTypeError("expected a path, given nothing")
    return Path(text)


COMMON: dict[str, dict[str, Any]] = {
    "--scenario": {"required": True, "help": "name (see dpem list), or path of a .toml file"},
    "--set": {"metavar": "FIELD=VALUE", "action": "append", "default": [], "help": "override a scenario field"},
    "--policies": {"required": True, "metavar": "A,B,…", "help": "contestants, separated by commas"},
    "--delay": {
        "action": "append",
        "type": float,
        "default": [],
        "metavar": "S",
        "help": "control delay in s of central policies, played as the nearest whole slots; may be given several times "
        "(default: 0, or the suite's)",
    },
    "--split": {
        "choices": ("train", "validation", "evaluation"),
        "default": "evaluation",
        "help": "frozen seed lists to take the episodes from (default: evaluation)",
    },
    "--topology": {
        "type": int,
        "metavar": "SEED",
        "help": "play this network instead of the split's (what nodes learn there)",
    },
    "--workers": {"type": int, "default": 1, "metavar": "W", "help": "processes (default: 1)"},
    "--data": {
        "metavar": "DIR",
        "type": typed_path,
        "help": "folder of data that is not shipped (default: $DPEM_DATA)",
    },
    "--out": {
        "required": True,
        "type": typed_path,
        "metavar": "DIR",
        "help": "folder for results; made if missing",
    },
}


def add_common(parser: argparse.ArgumentParser, *options: str) -> None:
    """Add options that several commands have."""
    for option in options:
        parser.add_argument(option, **COMMON[option])


def _add_list(commands: Any) -> None:
    parser = commands.add_parser("list", help="scenarios, policies, forecasters and data sources")
    add_common(parser, "--data")
    parser.set_defaults(run=_list)


def _add_show(commands: Any) -> None:
    parser = commands.add_parser("show", help="print a scenario as TOML")
    parser.add_argument("scenario", help="name, or path of a .toml file")
    add_common(parser, "--set")
    parser.set_defaults(run=_show)


def _add_run(commands: Any) -> None:
    parser = commands.add_parser(
        "run",
        help="compare policies on a scenario with paired seeds",
        description="Play the same episodes with every contestant and compare them. Central policies run once per "
        "--delay; 'central:NAME' puts a local policy under central control, NAME+FORECASTER has that forecaster. "
        "Writes results.parquet, summary.json, results.png and episode logs (Parquet) to --out.",
    )
    parser.add_argument("--policy", action="append", required=True, help="contestant; may be given several times")
    parser.add_argument("--forecaster", help="fills the forecast features for every contestant (default: its own)")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="episodes per contestant (default: 5)")
    parser.add_argument("--logs", choices=("first", "all"), default="first", help="episodes to log (default: first)")
    add_common(parser, "--scenario", "--set", "--topology", "--delay", "--split", "--data", "--out")
    parser.set_defaults(run=_run)


def _add_benchmark(commands: Any) -> None:
    parser = commands.add_parser(
        "benchmark",
        help="compare policies on a suite of scenarios, on several processes, resumable",
        description="Play the same episodes of every scenario of a suite with every policy and compare them. Central "
        "policies run once per delay; 'central:NAME' puts a local policy under central control, NAME+FORECASTER has "
        "that forecaster. Every episode is kept in --out when it is finished: the same command again plays only what "
        "is missing, or was made with other files, options, code or another scenario of that name, and says so. Writes "
        "results.parquet, summary.json and results.png.",
        epilog="example: dpem benchmark delay-curve --policies local-reactive,central-reactive --seeds 20 --workers 4 "
        "--out results",
    )
    parser.add_argument("suite", help="name (see dpem list)")
    parser.add_argument("--seeds", type=int, required=True, metavar="N", help="episodes per scenario and contestant")
    parser.add_argument(
        "--ray", metavar="ADDRESS", help="play on this Ray cluster instead; 'local' starts one (needs the extra ray)"
    )
    parser.add_argument(
        "--scenario", action="append", default=[],
        help="play this one instead of the suite's, varied the same way; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--forecasters", metavar="A,B,…", help="each fills the forecast features of every policy (default: its own)"
    )
    parser.add_argument(
        "--tuned", type=typed_path, metavar="DIR", help="play every policy with the options found there by dpem tune"
    )
    parser.add_argument(
        "--score", action="store_true",
        help="bound every episode and score the policies: 0 acts at random, 1 reaches the bound",
    )  # fmt: skip
    parser.add_argument("--reference", metavar="NAME", help="policy or label to compare with (default: the first)")
    add_common(parser, "--policies", "--topology", "--delay", "--split", "--workers", "--data", "--out")
    parser.set_defaults(run=_benchmark)


def _add_tune(commands: Any) -> None:
    parser = commands.add_parser(
        "tune",
        help="search the options of policies, with an equal budget, on validation seeds",
        description="Try options of every policy, each on the same validation episodes; the best mean reward wins. "
        "Central policies are searched once per --delay. What is finished is kept in DIR/SCENARIO.json; the same "
        "command again goes on from there, and searches again what was found with other files, code or another "
        "scenario of that name. dpem benchmark --tuned DIR plays what was found.",
    )
    parser.add_argument("--trials", type=int, default=16, metavar="N", help="per policy and delay (default: 16)")
    parser.add_argument("--episodes", type=int, default=3, metavar="N", help="per trial (default: 3)")
    add_common(parser, "--scenario", "--policies", "--delay", "--workers", "--data", "--out")
    parser.set_defaults(run=_tune)


def _add_forecast(commands: Any) -> None:
    parser = commands.add_parser(
        "forecast",
        help="score forecasters by themselves on held-out demand",
        description="Forecast the demand of the same episodes with every forecaster, no policy involved. Writes table, "
        "forecast.json and forecast.png: deviance skill over the true mean rates and scaled absolute error, for every "
        "slot ahead.",
        epilog="example: dpem forecast --scenario mesh100-v0 --forecaster moving-average:40 --forecaster bayes-filter "
        "--forecaster oracle --out forecasts",
    )
    parser.add_argument(
        "--forecaster", action="append", required=True, metavar="NAME[:ARGUMENT]", help="may be given several times"
    )
    parser.add_argument("--horizon", type=int, default=10, metavar="H", help="slots ahead (default: 10)")
    parser.add_argument("--seeds", type=int, default=20, metavar="N", help="episodes (default: 20)")
    parser.add_argument(
        "--topology", action="append", type=int, default=[], metavar="SEED",
        help="use this network instead of the split's; may be given several times",
    )  # fmt: skip
    add_common(parser, "--scenario", "--set", "--split", "--workers", "--data", "--out")
    parser.set_defaults(run=_forecast)


def _add_replay(commands: Any) -> None:
    parser = commands.add_parser("replay", help="run an episode again from its log and verify it")
    parser.add_argument("log", help="an episode log written by dpem run")
    add_common(parser, "--data")
    parser.set_defaults(run=_replay)


def _list(arguments: argparse.Namespace) -> int:
    from dpem_env.experiments.suites import SUITES
    from dpem_env.report.tables import print_list

    print_list(arguments.data, {suite.name: suite.summary for suite in SUITES.values()})
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from dpem_env import scenarios

    print(_toml(scenarios.get(arguments.scenario, **overrides(arguments.set))), end="")
    return 0


def _toml(scenario: Scenario) -> str:
    """The scenario as a text that stays the same TOML in the encoding of standard output."""
    text = scenario.to_toml()
    if (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf"):
        return text
    return re.sub(r"[^\x00-\x7f]", lambda character: f"\\U{ord(character[0]):08x}", text)


def _run(arguments: argparse.Namespace) -> int:
    from dpem_env.experiments.benchmark import Plan
    from dpem_env.experiments.contestants import contestants, played_delays, require_delays
    from dpem_env.experiments.logged_run import run_and_log
    from dpem_env.support.seeding import require_seed

    scenario = scenario_of(arguments)
    if arguments.topology is not None:
        require_seed("--topology", arguments.topology)
        scenario = scenario.on_topology(arguments.topology, arguments.split)
    require_delays(arguments.delay, scenario)
    require_at_least_1(arguments, "seeds")
    played = contestants(arguments.policy, played_delays([scenario], arguments.delay), arguments.forecaster)
    if arguments.delay and all(each.delay is None for each in played):
        raise DpemError("--delay is given, but no --policy is central; central:NAME puts a local one under control")
    plan = Plan(scenario.name, (scenario,), tuple(played), played[0], arguments.seeds, arguments.split)
    return run_and_log(plan, arguments.out, log_all=arguments.logs == "all")


def _benchmark(arguments: argparse.Namespace) -> int:
    from dpem_env.experiments.benchmark import make_plan, run_benchmark
    from dpem_env.experiments.suites import get_suite
    from dpem_env.experiments.tuning import Tuned
    from dpem_env.policy_names import listed
    from dpem_env.support.seeding import require_seed

    suite = get_suite(arguments.suite)
    require_at_least_1(arguments, "seeds", "workers")
    if arguments.topology is not None:
        require_seed("--topology", arguments.topology)
    forecasters = listed(arguments.forecasters) if arguments.forecasters else []
    plan = make_plan(
        suite,
        listed(arguments.policies),
        arguments.seeds,
        scenarios=arguments.scenario,
        delays=arguments.delay,
        forecasters=forecasters,
        reference=arguments.reference,
        tuned=Tuned(arguments.tuned, arguments.scenario) if arguments.tuned else None,
        score=arguments.score,
        topology=arguments.topology,
        split=arguments.split,
        data_dir=arguments.data,
    )
    return run_benchmark(plan, arguments.out, workers=arguments.workers, ray=arguments.ray)


def _tune(arguments: argparse.Namespace) -> int:
    from dpem_env import scenarios
    from dpem_env.experiments.benchmark import try_out
    from dpem_env.experiments.contestants import played_delays, policy_specs, require_delays
    from dpem_env.experiments.tuning import result_file, tune
    from dpem_env.policy_names import listed
    from dpem_env.report.tables import print_tuned, progress
    from dpem_env.support.files import make_writable

    scenario = scenarios.get(arguments.scenario, data_dir=arguments.data)
    require_delays(arguments.delay, scenario)
    require_at_least_1(arguments, "trials", "episodes", "workers")
    policies = policy_specs(listed(arguments.policies), played_delays([scenario], arguments.delay))
    try_out([scenario], "validation")
    make_writable(arguments.out)
    path = result_file(arguments.out, scenario.name)
    with progress() as bar:
        task = bar.add_task("tuning", total=None)
        tuned = tune(
            policies,
            scenario,
            path,
            arguments.trials,
            arguments.episodes,
            workers=arguments.workers,
            on_start=lambda total: bar.update(task, total=total),
            on_episode=lambda policy: bar.update(task, advance=1, description=f"tuning {policy.label}"),
        )
    print_tuned(tuned)
    print(f"wrote {path}")
    return 0


def _forecast(arguments: argparse.Namespace) -> int:
    from dpem_env.experiments.forecast_skill import measure_skill
    from dpem_env.report.forecast_figure import save_forecast_figure
    from dpem_env.report.tables import print_forecasts, progress
    from dpem_env.support.files import result_folder, write_json
    from dpem_env.support.seeding import require_seed

    require_at_least_1(arguments, "horizon", "seeds", "workers")
    for seed in arguments.topology:
        require_seed("--topology", seed)
    scenario = scenario_of(arguments)
    name = scenario.name  # the horizon is how far is looked, nothing about the scenario
    scenario = scenario.override(name=name, forecast_horizon=arguments.horizon)
    with result_folder(arguments.out):
        with progress() as bar:
            task = bar.add_task("forecasting", total=arguments.seeds * len({*arguments.forecaster, "mean-rates"}))
            summary = measure_skill(
                scenario,
                arguments.forecaster,
                arguments.seeds,
                split=arguments.split,
                topologies=arguments.topology,
                workers=arguments.workers,
                on_episode=lambda forecaster: bar.update(task, advance=1, description=forecaster),
            )
        write_json(arguments.out / "forecast.json", summary)
        save_forecast_figure(arguments.out / "forecast.png", summary)
    print_forecasts(summary)
    print(f"wrote {arguments.out / 'forecast.json'} and {arguments.out / 'forecast.png'}")
    return 0


def require_at_least_1(arguments: argparse.Namespace, *options: str, most: int = 1_000_000) -> None:
    """DpemError unless these numbers, or lists of numbers, were given as 1 or more, at most so many."""
    for option in options:
        given = getattr(arguments, option)
        for number in given if isinstance(given, list) else [given]:
            if number < 1:
                raise DpemError(f"--{option} is {number}; expected at least 1")
            if number > most:
                raise DpemError(f"--{option} is {number}; expected at most {most:,}")


def scenario_of(arguments: argparse.Namespace) -> Scenario:
    """That of --scenario, as --set changes it, with its data where --data says."""
    from dpem_env import scenarios

    return scenarios.get(arguments.scenario, **{"data_dir": arguments.data} | overrides(arguments.set))


def _replay(arguments: argparse.Namespace) -> int:
    from dpem_env.logs.recorder import read_log
    from dpem_env.logs.replay import replay_log
    from dpem_env.report.tables import progress

    log = read_log(arguments.log)
    with progress() as bar:
        task = bar.add_task(f"replaying {log.header['policy']} on {log.scenario.name}", total=len(log.rows))
        report = replay_log(log, lambda session: bar.advance(task), arguments.data)
    for line in report.lines():
        print(line)
    return 0 if report.verified else 1


def overrides(settings: Sequence[str], example: str = "--set request_rate=16.0") -> dict[str, Any]:
    """Fields by name, from NAME=VALUE texts; values are read as TOML, else as text. Errors show the `example`."""
    import tomllib

    fields = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise DpemError(f"{example.split()[0]} {setting!r}: expected NAME=VALUE, e.g. {example}")
        try:
            fields[name.strip()] = tomllib.loads(f"value = {value}")["value"]
        except (ValueError, RecursionError):  # no TOML value: a text
            fields[name.strip()] = value
    return fields


if __name__ == "__main__":
    raise SystemExit(main())
