"""Pages that are made of the code and of committed results: environment, scenarios, policies, formulas."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

from analyses import BASELINES, records
from update import made

import dpem_env
from dpem_baselines import bound, clairvoyant
from dpem_env import physics, policies, scenarios
from dpem_env.demand import forecast
from dpem_env.network.network import build_network
from dpem_env.observations.features import FeatureTable
from dpem_env.policies import CentralPolicy, HybridPolicy, LocalPolicy
from dpem_env.report.documented import documented_toml
from dpem_env.report.network_map import save_map
from dpem_env.report.tables import num_nodes
from dpem_env.scenarios import OFFERED_LOADS, SCENARIOS, Scenario
from dpem_env.simulator import RULES_VERSION
from dpem_env.simulator.actions import ActionCode
from dpem_env.support.errors import DataError
from dpem_env.support.files import read_json

Generated = dict[str, str | bytes]  # pages and pictures by their paths on the site

ROOT = BASELINES.parent
RESULTS = ("results/delay-curve", "results/networks", "results/small")  # that pages of scenarios show
RANGES = ("generation_rate", "swap_rate", "memory")
MAIN = (*RANGES, "coherence_time", "link_fidelity", "swap_success")
MAIN += ("request_rate", "fidelity_classes", "class_weights", "deadline", "time_to_live", "slot_duration", "slots")
# What else tells of scenarios whose names begin so.
SEE = {
    "swap-chain": "[Published results, reproduced](truth.md#repeater-chains-with-cut-offs) and "
    "[Learning when to swap](swap-chain.md) measure policies on it.",
    "switch": "[Published results, reproduced](truth.md#the-entanglement-switch) measures policies on it.",
    "mesh20-ions": "[Hardware that has been shown](hardware.md#two-networks) has scores of a few rules.",
    "mesh20-nv": "[Hardware that has been shown](hardware.md#two-networks) has scores of a few rules.",
}
CONTROL = {LocalPolicy: "every node decides", CentralPolicy: "a controller decides", HybridPolicy: "both decide"}
TABLE = re.compile(r"^(=+(?: =+)+)\n(.*?)\n\1\n(.*?)\n\1$", re.DOTALL | re.MULTILINE)  # of reStructuredText


@cache
def generated() -> Generated:
    """All of them."""
    pages: Generated = {"environment.md": environment(), "formulas.md": formulas(), "baselines.md": players()}
    pages["scenarios/index.md"] = index()
    for scenario in SCENARIOS.values():
        drawn = network_map(scenario)
        pages[f"scenarios/{scenario.name}.md"] = page_of(scenario, drawn[0] if drawn else None)
        if drawn:
            pages[f"scenarios/{scenario.name}.png"] = drawn[1]
    return pages


def environment() -> str:
    """What the docstrings of the environments say, and a picture."""
    scenario = scenarios.get("mesh100-v0")
    name, nodes, actions, width = scenario.name, num_nodes(scenario), _actions(scenario), _width(scenario)
    parts = [
        "# The environment",
        "![Twenty nodes that serve the same requests, each for itself and by a controller](episode.gif)",
        "*The same requests twice: every node decides for itself (left), a controller half a second late (right).*",
        "\n".join(
            [
                f"| in {name} | every node decides | a controller decides |",
                "|:--|:--|:--|",
                f"| made by | `{_made_by('parallel_env', name)}` | `{_made_by('CentralEnv', name, ', delay=0.5')}` |",
                "| interface | PettingZoo `ParallelEnv` | Gymnasium `Env` |",
                f"| agents | {nodes} | 1 |",
                f"| actions | `Discrete({actions})` each | `MultiDiscrete([{actions}] * {nodes})` |",
                f"| observations | `Box(0, 1, ({width},), float32)` each | `Box(0, 1, ({nodes}, {width}), float32)` |",
                f"| an episode | {scenario.episode.slots} slots of {scenario.control.slot_duration:g} s | the same |",
            ]
        ),
        "What follows is the documentation of the two classes, as `help()` shows it. [The rules](rules.md) say what a "
        "slot does, [the arrays](vector.md) how to step many networks at once.",
        "## EntanglementEnv: every node is an agent",
        markdown(dpem_env.EntanglementEnv),
        "## CentralEnv: one controller",
        markdown(dpem_env.CentralEnv),
    ]
    return "\n\n".join(parts)


def formulas() -> str:
    """All public functions of `dpem_env.physics`, with what they say of themselves."""
    functions = [each for name, each in vars(physics).items() if inspect.isfunction(each) and not name.startswith("_")]
    parts = ["# Formulas", f"{markdown(physics)} [Their validation](physics.md) has the pictures."]
    for each in functions:
        arguments = ", ".join(inspect.signature(each).parameters)
        parts += [f"## {each.__name__}", f"`{each.__name__}({arguments})`", markdown(each)]
    return "\n\n".join(parts)


def players() -> str:
    """Policies, forecasters and bounds, by the names under which commands know them."""
    rules, learned = {}, {}
    for name, point in sorted(policies.available().items()):
        (rules if point.value.startswith("dpem_baselines") else learned)[name] = point.load()
    forecasters = {name: _at(place) for name, place in sorted(forecast.available().items())}
    parts = [
        "# Baselines and other policies",
        "Every name here can follow `--policy`; descriptions are those of the code, with what they are taken from. "
        "Scores stand on the [pages of scenarios](scenarios/index.md) and in [the results](results.md), tuned options "
        "in [baselines/tuned](../baselines/tuned).",
        "## Rules",
        *_described(rules),
        "## Learned policies, and models of your own",
        *_described(learned),
        "## Forecasters",
        "They follow a policy's `+`. [How good they are](forecasting.md) is measured.",
        *_described(forecasters),
        "## Bounds",
        "No policy exceeds them in the mean.",
        *(part for bound in (clairvoyant, bound) for part in _of_file({}, bound)),
    ]
    return "\n\n".join(parts)


def index() -> str:
    """The scenarios beside each other."""
    lines = ["| scenario | agents | requests/s | load ρ | what it is |", "|:--|--:|--:|--:|:--|"]
    for scenario in SCENARIOS.values():
        load = f"{OFFERED_LOADS[scenario.name]:.2f}" if scenario.name in OFFERED_LOADS else ""
        rate = scenario.requests_per_slot / scenario.control.slot_duration
        place = f"[{scenario.name}]({scenario.name}.md)"
        lines.append(f"| {place} | {num_nodes(scenario)} | {rate:g} | {load} | {scenario.summary} |")
    return "\n\n".join(
        [
            "# Scenarios",
            "A scenario fixes everything but the seeds: network, hardware, demand, control and the lists of seeds for "
            "training, validation and evaluation. Its name and hash say which world a result is of.",
            "\n".join(lines),
            "Load ρ is the request rate over the largest one of which 80 % could be delivered at best. "
            "`dpem show NAME` prints a scenario as a file to edit; [your own network](../own-network.md) can take its "
            "place.",
        ]
    )


def network_map(scenario: Scenario) -> tuple[str, bytes] | None:
    """What the first network of evaluation is, in words, and its map; None if its data is not here."""
    seed = scenario.seeds.evaluation.topology.start
    try:
        network = build_network(scenario, seed)
    except DataError:
        return None
    with TemporaryDirectory() as folder:
        path = Path(folder) / "map.png"
        save_map(path, network, scenario.routing.min_link_rate)
        picture = path.read_bytes()
    topology, partners = network.topology, (network.peers >= 0).sum(axis=1)
    lengths = " to ".join(dict.fromkeys(f"{each:.2g}" for each in (topology.length.min(), topology.length.max())))
    words = (
        f"The first network of evaluation (topology seed {seed}): {topology.num_nodes} nodes, {topology.num_links} "
        f"links of {lengths} km, {partners.mean():.1f} partners per node on average. "
        "The larger a node, the faster its source."
    )
    return words, picture


def page_of(scenario: Scenario, drawn: str | None) -> str:
    """A page about one scenario."""
    name, toml = scenario.name, documented_toml(scenario).replace("\n", "\n    ").rstrip()
    shown = (
        f'![Map of {name}]({name}.png){{ width="620" }}\n\n*{drawn}*'
        if drawn
        else "*No map: its data was not here (`dpem list`).*"
    )
    sizes = f"{num_nodes(scenario)} agents with {_actions(scenario)} actions and {_width(scenario)} features each"
    load = f", offered load ρ = {OFFERED_LOADS[name]:.2f}" if name in OFFERED_LOADS else ""
    parts = [
        f"# {name}",
        f"{scenario.summary[0].upper()}{scenario.summary[1:]}.",
        shown,
        f"{sizes[0].upper()}{sizes[1:]}{load}. Hash `{scenario.hash}`, rules {RULES_VERSION}.",
        f"```python\nenv = {_made_by('parallel_env', name)}\n```",
        "## Main numbers",
        "\n".join(["| field | value | unit and meaning |", "|:--|:--|:--|", *_numbers(scenario)]),
        "## Bound and scores",
        *_scores(scenario),
        "## Every field",
        f'??? note "As `dpem show {name}` prints it"\n\n    ```toml\n    {toml}\n    ```',
    ]
    return "\n\n".join(parts)


def _scores(scenario: Scenario) -> Iterator[str]:
    """The table of committed results of this very scenario, under the rules of today."""
    stamped = f"rules {RULES_VERSION}"
    of = [each for each in RESULTS if scenario.hash in _hashes(each)]
    found = [each for each in records(*of) if each["scenario"] == scenario.name and each["version"].endswith(stamped)]
    if found:
        yield made(
            scenario.name,
            {
                "results": of,
                "where": f"scenario == '{scenario.name}' and (delay.isna() or delay in (0, 0.5))",
                "order": ["delay", "-delivery_rate"],
                "columns": ["policy: {label}", "delivery_rate", "contention", "reward", "score"],
                "note": "Tuned with equal budgets; {measured}",
            },
        )
        yield (
            "The *clairvoyant bound* is what no policy can deliver more than, even one that knows all requests "
            "beforehand. *Score*: 0 is acting at random, 1 is the bound. "
            "[All results](../results.md), [what each policy is](../baselines.md)."
        )
    see = [words.replace("](", "](../") for start, words in SEE.items() if scenario.name.startswith(start)]
    yield from see
    if not found and not see:
        yield f"There is no committed result of this scenario under {stamped}."


@cache
def _hashes(results: str) -> set[str]:
    return {each["hash"] for each in read_json(BASELINES / results / "summary.json")["scenarios"]}


def _numbers(scenario: Scenario) -> Iterator[str]:
    for name in MAIN:
        for _, section in scenario:
            if name in getattr(type(section), "model_fields", ()):
                value = getattr(section, name)
                values = [f"{each:g}" for each in (value if isinstance(value, tuple) else (value,))]
                told = " to ".join(dict.fromkeys(values)) if name in RANGES else ", ".join(values)
                yield f"| `{name}` | {told} | {type(section).meaning(name)} |"


def _described(found: dict[str, Any]) -> Iterator[str]:
    """All that a file has of these, file by file."""
    for module in dict.fromkeys(inspect.getmodule(each) for each in found.values()):
        if module:
            yield from _of_file(
                {name: each for name, each in found.items() if inspect.getmodule(each) is module}, module
            )


def _of_file(found: dict[str, Any], module: ModuleType) -> Iterator[str]:
    """The docstring of a file, and of what it has, with who decides."""
    source = Path(module.__file__ or "").resolve().relative_to(ROOT)
    yield f"### {', '.join(found) or source.stem}"
    yield f"{markdown(module)} ([{source.name}](../{source.as_posix()}))"
    for name, what in found.items():
        bases = [words for kind, words in CONTROL.items() if inspect.isclass(what) and issubclass(what, kind)]
        yield f"**{name}**{''.join(f' ({words})' for words in bases)}: {markdown(what)}"


def _at(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def markdown(what: Any) -> str:
    """The docstring as Markdown: tables of reStructuredText have pipes, and names of pages are links."""
    text = TABLE.sub(_with_pipes, inspect.getdoc(what) or "")
    return re.sub(r"\bdocs/([\w-]+\.md)", r"[docs/\1](\1)", text)


def _with_pipes(found: re.Match[str]) -> str:
    rule, head, body = found.groups()
    spans = [slice(column.start(), column.end()) for column in re.finditer("=+", rule)]
    spans[-1] = slice(spans[-1].start, None)
    head, *rows = [
        "| " + " | ".join(line[span].strip() for span in spans) + " |" for line in (head, *body.splitlines())
    ]
    return "\n".join([head, "|:--" * len(spans) + "|", *rows])


def _made_by(function: str, name: str, arguments: str = "") -> str:
    return f'dpem_env.{function}("{name}"{arguments})'


def _actions(scenario: Scenario) -> int:
    return ActionCode.of(scenario).num_actions


def _width(scenario: Scenario) -> int:
    return FeatureTable(scenario).width
