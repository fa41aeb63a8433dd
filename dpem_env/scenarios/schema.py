"""Scenarios: named, versioned, frozen and validated configurations of the simulated world.

A scenario fixes everything but the seeds: the network generator, the hardware, the demand, the control rules and the
seed lists for training, validation and evaluation. It is hashable, loads from and saves to TOML, and every leaf field
has a unique name, so ``get("mesh100-v0").override(request_rate=16.0)`` needs no section. Rules of ``-v0`` scenarios
are provisional until release 0.1.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from collections.abc import Iterator
from itertools import pairwise
from numbers import Integral
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args

import tomli_w
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from dpem_env.support.errors import ScenarioError, first_mistake, nearest
from dpem_env.support.files import whole_file
from dpem_env.support.seeding import SEEDS, following, require_seed

Split = Literal["train", "validation", "evaluation"]
SPLITS: tuple[Split, ...] = get_args(Split)

MAX_COUNT = 10_000  # of nodes, peers, qubits, …: what they index stays within 32 bits
MAX_SLOTS = 1_000_000  # of any one duration, far below what 32-bit slot numbers hold
MAX_REQUESTS = 10_000_000  # expected in an episode; also of sessions, and of rates that change
MAX_STEPS = 5e10  # of a search for routes: a minute or two
MAX_CELLS = 50_000_000  # numbers in any array of one network
MAX_CLASSES = 16
LONGEST_NAME, LONGEST_LINE, LONGEST_FILE = 200, 1000, 2**20  # characters of a name or a text, bytes of a scenario file
SMALLEST, LARGEST = 1e-9, 1e9  # of real quantities, in their units: products and quotients of them stay finite


def _zero_or_notable(value: float) -> float:
    if 0.0 < value < SMALLEST:
        raise ValueError(f"expected 0 or at least {SMALLEST:g}")
    return value


def _printable(name: str) -> str:
    if not name.isprintable() or not name.strip():
        raise ValueError("expected characters that can be printed in one line")
    return name


def _no_empty_path(path: object) -> object:
    if path == "":
        raise ValueError("expected a folder")
    return path


Count = Annotated[int, Field(strict=True, ge=1, le=MAX_COUNT)]
Nodes = Annotated[int, Field(strict=True, ge=2, le=MAX_COUNT)]
Natural = Annotated[int, Field(strict=True, ge=0, lt=SEEDS)]
NonNegative = Annotated[float, Field(strict=True, ge=0, le=LARGEST), AfterValidator(abs)]  # abs: -0.0 is 0.0
Weight = Annotated[NonNegative, AfterValidator(_zero_or_notable)]  # also a rate: something that is divided by
Positive = Annotated[float, Field(strict=True, ge=SMALLEST, le=LARGEST)]
Probability = Annotated[float, Field(strict=True, ge=0, le=1)]
Fidelity = Annotated[float, Field(strict=True, ge=0.25, le=1)]
Text = Annotated[str, Field(strict=True, max_length=LONGEST_LINE)]
File = Annotated[str, Field(strict=True, min_length=1, max_length=LONGEST_LINE)]
Content = Annotated[str, Field(strict=True, min_length=16, max_length=16), AfterValidator(_printable)]
Name = Annotated[str, Field(strict=True, min_length=1, max_length=LONGEST_NAME), AfterValidator(_printable)]
Folder = Annotated[Path, BeforeValidator(_no_empty_path), AfterValidator(Path.absolute)]

# What the fields are for stands in their annotations: unit and meaning, as `documented_toml` prints them. Of several:
GENERATOR = "where the network comes from: mesh, chain, star, topohub, coronet or file"
KIND = "where requests come from: sessions, trace, replay or saturated"
LENGTH_SCALE = "factor by which lengths are multiplied"
CONTENT = "fingerprint of what the files say; without it they are read as they are"

_Value = TypeVar("_Value", int, float)


def _number_or_list(value: object) -> str:
    return "list" if isinstance(value, list | tuple) else "number"


# A time in s: one for all fidelity classes, or a list with one for each.
PerClass = Annotated[
    Annotated[Positive, Tag("number")] | Annotated[tuple[Positive, ...], Field(max_length=MAX_CLASSES), Tag("list")],
    Discriminator(_number_or_list),
]


Brightness = Annotated[float, Field(strict=True, gt=0, le=0.5)]
# The bright state: one for all links, or a list with one for each quality.
PerQuality = Annotated[
    Annotated[Brightness, Tag("number")] | Annotated[tuple[Brightness, ...], Field(max_length=16), Tag("list")],
    Discriminator(_number_or_list),
]


def _two(span: object) -> object:
    if not isinstance(span, list | tuple) or len(span) != 2:
        raise ValueError("expected [low, high], two numbers")
    return span


def _ordered(span: tuple[_Value, _Value]) -> tuple[_Value, _Value]:
    if span[0] > span[1]:
        raise ValueError(f"the range [{span[0]}, {span[1]}] runs backwards; expected [low, high]")
    return span


class Section(BaseModel):
    """Base of every configuration section: frozen, hashable, no unknown keys, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    files: ClassVar[tuple[str, ...]] = ()  # fields that name files which the world follows from

    @classmethod
    def meaning(cls, field: str) -> str:
        """Unit and meaning of a field; empty for one that is a section."""
        return next((each for each in cls.model_fields[field].metadata if isinstance(each, str)), "")


class MeshNetwork(Section):
    """Random geometric mesh: nodes uniform in a square, the shortest pairs linked, then joined until connected."""

    generator: Annotated[Literal["mesh"], GENERATOR] = "mesh"
    nodes: Annotated[Nodes, "nodes"] = 100
    side: Annotated[Positive, "km; side of the square they lie in"] = 100.0
    links_per_node: Annotated[Positive, "links for each node, before some more join what is apart"] = 2.5

    @property
    def num_links(self) -> int:
        """Links between the nearest nodes; some more may join the rest."""
        return min(round(self.links_per_node * self.nodes), self.nodes * (self.nodes - 1) // 2)


class RelayNetwork(Section):
    """A regular network whose relays may have hardware of their own."""

    nodes: Annotated[Nodes, "nodes"]
    spacing: Annotated[Positive, "km; length of every link"] = 10.0
    relay_generation_rate: Annotated[Weight | None, "pairs/s of relays; not set: as generation_rate"] = None
    relay_swap_rate: Annotated[Weight | None, "swaps/s of relays; not set: as swap_rate"] = None


class ChainNetwork(RelayNetwork):
    """Nodes 0..n-1 in a line; the interior ones are relays."""

    generator: Annotated[Literal["chain"], GENERATOR] = "chain"
    nodes: Annotated[Nodes, "nodes"] = 3


class StarNetwork(RelayNetwork):
    """Nodes 1..n-1 around hub 0, the only relay."""

    generator: Annotated[Literal["star"], GENERATOR] = "star"
    nodes: Annotated[Nodes, "nodes, the hub among them"] = 8


class TopohubNetwork(Section):
    """A topology of the PyPI package topohub, by its name there; fibre lengths are multiplied by `length_scale`."""

    generator: Annotated[Literal["topohub"], GENERATOR] = "topohub"
    topology: Annotated[Text, "name in topohub, such as topozoo/Geant2012 or sndlib/germany50"] = "topozoo/Surfnet"
    length_scale: Annotated[Positive, LENGTH_SCALE] = 1.0


class CoronetNetwork(Section):
    """CORONET Global (100 cities) from the data folder; fibre lengths are multiplied by `length_scale`."""

    generator: Annotated[Literal["coronet"], GENERATOR] = "coronet"
    length_scale: Annotated[Positive, LENGTH_SCALE] = 1.0


class FileNetwork(Section):
    """A network of one's own: nodes, fibres and, where given, their hardware (docs/own-network.md).

    From one `file` (GraphML, GML, node-link JSON or SeQUeNCe's topology JSON), or from tables: `links_file`, and
    `nodes_file` for what links do not say.
    """

    generator: Annotated[Literal["file"], GENERATOR] = "file"
    file: Annotated[
        File | None, "path: GraphML (.graphml), GML (.gml), node-link or SeQUeNCe's topology JSON (.json)"
    ] = None
    nodes_file: Annotated[File | None, "path of a CSV table of nodes, beside links_file"] = None
    links_file: Annotated[File | None, "path of a CSV table of links, in place of file"] = None
    length_scale: Annotated[Positive, LENGTH_SCALE] = 1.0
    network_content: Annotated[Content | None, CONTENT] = None

    files: ClassVar[tuple[str, ...]] = ("file", "nodes_file", "links_file")

    @model_validator(mode="after")
    def _one_spelling(self) -> FileNetwork:
        if (self.file is None) == (self.links_file is None):
            raise ValueError("expected either file, or links_file (and nodes_file)")
        if self.nodes_file is not None and self.links_file is None:
            raise ValueError("nodes_file goes with links_file, not with file")
        return self


class Hardware(Section):
    """Sources, repeaters, memories and fibre. Ranges are [low, high] of a uniform draw per node.

    A source's pairs of a slot are a Poisson number, shared by the links that claim it; with `emission` "bernoulli" it
    makes one attempt for each of these links, which succeeds with g times the slot's duration.
    """

    generation_rate: Annotated[
        tuple[Weight, Weight],
        "pairs/s of a source, useful ones at zero distance (single-click: 2·bright_state of them)",
    ] = (0.0, 10.0)
    emission: Annotated[Literal["poisson", "bernoulli"], "links share a source's pairs, or each makes its own try"] = (
        "poisson"
    )
    swap_rate: Annotated[tuple[Weight, Weight], "entanglement swaps/s of a repeater"] = (0.0, 5.0)
    memory: Annotated[tuple[Count, Count], "qubits of a node"] = (8, 16)
    coherence_time: Annotated[Positive, "s; of every memory"] = 60.0
    attenuation: Annotated[NonNegative, "dB/km of fibre"] = 0.2
    link_model: Annotated[
        Literal["midpoint", "single-click"], "both photons must come through, or one (with bright_state)"
    ] = "midpoint"
    bright_state: Annotated[
        PerQuality,
        "single-click: probability that an end emits, by which pairs lose fidelity; of each quality, if a list",
    ] = 0.05
    parallel_modes: Annotated[
        Count | None, "attempts of a source that wait for an answer, 2L/c each, at most; none: as many as there are"
    ] = None
    attempt_success: Annotated[
        float,
        Field(strict=True, gt=0, le=1),
        "probability, over no distance, with parallel_modes: generation_rate / attempt_success attempts/s",
    ] = 1.0
    link_fidelity: Annotated[Fidelity, "of a pair that has just been made over a link"] = 0.95
    swap_success: Annotated[Probability, "probability that a swap succeeds"] = 0.9
    gate_fidelity: Annotated[Fidelity, "of a two-qubit gate"] = 0.995
    readout_fidelity: Annotated[
        float, Field(strict=True, gt=0.5, le=1), "probability that a qubit is read out right"
    ] = 0.998
    purification_gates: Annotated[
        Literal["ideal", "noisy"], "noisy: purification has the gate and readout fidelities of swaps"
    ] = "noisy"
    token_cap: Annotated[
        float, Field(strict=True, ge=1, le=LARGEST), "swaps that an idle repeater saves up at most"
    ] = 2.0

    @property
    def purification_fidelities(self) -> tuple[float, float]:
        """Gate and readout fidelity of purification rounds."""
        return (self.gate_fidelity, self.readout_fidelity) if self.purification_gates == "noisy" else (1.0, 1.0)

    @property
    def light_is_chosen(self) -> bool:
        """Whether allocations choose how bright their links are, instead of purifying them."""
        return isinstance(self.bright_state, tuple)

    @property
    def bright_states(self) -> tuple[float, ...]:
        """The bright state of every quality, where it is chosen; else the one there is."""
        return self.bright_state if isinstance(self.bright_state, tuple) else (self.bright_state,)

    @model_validator(mode="after")
    def _better_links_are_darker(self) -> Hardware:
        if not self.bright_states or list(self.bright_states) != sorted(set(self.bright_states), reverse=True):
            raise ValueError("bright_state must be decreasing: links of a higher quality are darker")
        return self

    @model_validator(mode="after")
    def _nothing_is_given_in_vain(self) -> Hardware:
        for name, needed, used in (
            ("bright_state", 'link_model = "single-click"', self.link_model == "single-click"),
            ("attempt_success", "parallel_modes", self.parallel_modes is not None),
        ):
            if not used and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} = {getattr(self, name)} does nothing without {needed}")
        return self

    _pairs = field_validator("generation_rate", "swap_rate", "memory", mode="before")(_two)
    _ranges = field_validator("generation_rate", "swap_rate", "memory")(_ordered)


class Routing(Section):
    """Candidate routes, and what makes a peer reachable."""

    routes_per_peer: Annotated[int, Field(strict=True, ge=1, le=16), "candidate routes to a peer"] = 3
    max_hops: Annotated[int, Field(strict=True, ge=1, le=16), "links of a route at most"] = 8
    min_link_rate: Annotated[NonNegative, "pairs/s; g·η that every link of a peer's cheapest route needs"] = 0.1
    min_swap_rate: Annotated[NonNegative, "swaps/s that every relay of a peer's cheapest route needs"] = 0.1


class Requests(Section):
    """What every kind of demand shares: peers, classes of requested fidelity and deadline."""

    peers: Annotated[Count, "partners of a node at most"] = 8
    fidelity_classes: Annotated[
        tuple[Fidelity, ...], Field(max_length=MAX_CLASSES), "fidelities that requests may ask for"
    ] = (0.75, 0.85, 0.91)
    class_weights: Annotated[
        tuple[Weight, ...], Field(max_length=MAX_CLASSES), "how often each class within reach is asked for, relatively"
    ] = (0.5, 0.3, 0.2)
    deadline: Annotated[PerClass, "s after arrival; one for all classes, or one for each"] = (1.0, 2.0, 2.0)
    pairs_per_request: Annotated[
        int, Field(strict=True, ge=1, le=100), "pairs that a request is for, all of them in time"
    ] = 1

    @property
    def deadlines(self) -> tuple[float, ...]:
        """Deadline of each fidelity class, s."""
        if isinstance(self.deadline, tuple):
            return self.deadline
        return (self.deadline,) * len(self.fidelity_classes)

    @model_validator(mode="after")
    def _classes_make_sense(self) -> Requests:
        if not self.fidelity_classes or list(self.fidelity_classes) != sorted(set(self.fidelity_classes)):
            raise ValueError("fidelity_classes must be increasing, without repeats")
        if len(self.class_weights) != len(self.fidelity_classes) or sum(self.class_weights) <= 0:
            raise ValueError("class_weights needs one weight per fidelity class, not all zero")
        if len(self.deadlines) != len(self.fidelity_classes):
            raise ValueError("deadline needs one number, or one per fidelity class")
        return self


class SessionDemand(Requests):
    """Requests between gravity-weighted pairs whose on/off sessions make them predictable.

    Arrivals are Poisson. With `arrivals` "periodic" the requests of a session come one period apart, a period being one
    over the pair's rate when on; each is late by a time uniform over the share `jitter` of a period.
    """

    kind: Annotated[Literal["sessions"], KIND] = "sessions"
    request_rate: Annotated[NonNegative, "requests/s over the whole network (Λ)"] = 17.3
    predictability: Annotated[Probability, "share of the rate that follows sessions (φ)"] = 1.0
    arrivals: Annotated[Literal["poisson", "periodic"], "of a session's requests"] = "poisson"
    jitter: Annotated[Probability, "share of a period by which a periodic request is late at most"] = 0.2
    session_duration: Annotated[Positive, "s; mean time that a session is on"] = 20.0
    session_share: Annotated[float, Field(strict=True, gt=0, lt=1), "share of the time that a session is on (p)"] = 0.05
    popularity_sigma: Annotated[NonNegative, Field(le=10), "of the lognormal popularity of a node as a partner"] = 0.5
    gravity_length: Annotated[Positive, "km over which demand between two nodes falls to 1/e"] = 50.0
    demand_matrix: Annotated[File | None, "path of a CSV of demand, names × names; not set: popularity and gravity"] = (
        None
    )
    demand_content: Annotated[Content | None, CONTENT] = None

    files: ClassVar[tuple[str, ...]] = ("demand_matrix",)


class TraceDemand(SessionDemand):
    """Poisson requests at rates proportional to measured traffic matrices, optionally mixed with sessions.

    The trace is classical traffic (Abilene) standing in for entanglement requests: it gives *rates* only. Requests,
    their times and their fidelity classes are drawn from those rates, because no public trace carries them.
    """

    kind: Annotated[Literal["trace"], KIND] = "trace"  # type: ignore[assignment]
    trace: Annotated[Literal["abilene"], "whose traffic matrices"] = "abilene"
    matrix_duration: Annotated[Positive, "s simulated that one 5-minute matrix lasts"] = 5.0
    trace_share: Annotated[Probability, "share of the load that follows the trace; the rest comes as sessions"] = 1.0

    @model_validator(mode="after")
    def _one_source_of_demand(self) -> TraceDemand:
        if self.demand_matrix is not None:
            raise ValueError('a trace says itself who wants whom: demand_matrix goes with kind = "sessions"')
        return self


class ReplayDemand(Requests):
    """Requests read from a CSV file with columns time, source, destination, fidelity and optionally deadline."""

    kind: Annotated[Literal["replay"], KIND] = "replay"
    requests_file: Annotated[File, "path of a CSV: time (s), source, destination, fidelity[, deadline (s)]"]
    demand_content: Annotated[Content | None, CONTENT] = None

    files: ClassVar[tuple[str, ...]] = ("requests_file",)


class SaturatedDemand(Requests):
    """One request in every slot, from the first node to the last; with a `switch`, between any two leaves.

    With a deadline of one slot there is always exactly one, renewed at once when it is served.
    """

    kind: Annotated[Literal["saturated"], KIND] = "saturated"


class Control(Section):
    """Slots, allocations, when relays swap, and the age of information.

    With a `news_period` nodes ask the nodes on their own candidate routes, so often, how those fare; else they know it
    from telemetry, as of the last snapshot.

    With `swapping` "all" an allocation swaps at all its relays at once, when all its links are there; with "asap" every
    relay swaps as soon as it holds a pair on either side, and with `regenerate` links are made again where that leaves
    both their qubits free, inside longer segments. With "nested" the middle one of five nodes waits while both its
    neighbours can swap. With "agents" every relay of a chain decides in every slot whether to swap, and with `discard`
    may let go of what it holds instead; the ends ask for pairs by themselves. Segments older than `cutoff` are
    discarded.

    With a `switch` the hub of a star swaps pairs that any two leaves have stored with it, for a request between them.
    """

    slot_duration: Annotated[
        float, Field(strict=True, ge=0.001, le=LARGEST), "s; messages that take ms are neglected"
    ] = 0.25
    rows: Annotated[int, Field(strict=True, ge=1, le=255), "open allocations of a node at most"] = 4
    qualities: Annotated[
        int,
        Field(strict=True, ge=1, le=16),
        "qualities to ask for: quality q takes q - 1 rounds a link, or has the q-th bright_state",
    ] = 3
    time_to_live: Annotated[Positive, "s until an allocation is torn down"] = 2.0
    swapping: Annotated[
        Literal["all", "asap", "nested", "agents"],
        "all relays at once, each as soon as it can, nested, or as they decide",
    ] = "asap"
    discard: Annotated[
        bool, Field(strict=True), 'whether relays may discard what they hold; only with swapping = "agents"'
    ] = False
    regenerate: Annotated[
        bool, Field(strict=True), 'whether links are made again in longer segments; not with swapping = "all"'
    ] = False
    switch: Annotated[
        bool, Field(strict=True), "whether the hub of a star swaps what two leaves have stored, for a request of theirs"
    ] = False
    cutoff: Annotated[
        Annotated[int, Field(strict=True, ge=0, le=MAX_SLOTS)] | None,
        "slots after which a link or segment is discarded, stored pairs are not; not set: none is too old",
    ] = None
    telemetry_period: Annotated[Positive, "s between snapshots of the network"] = 1.0
    telemetry_delay: Annotated[Count, "slots until nodes can read a snapshot"] = 2
    news_period: Annotated[
        Positive | None, "s between readings of a node's own routes; not set: telemetry tells of them"
    ] = None
    news_delay: Annotated[Positive | None, "s until what was read of them is known; not set: one slot"] = None

    @model_validator(mode="after")
    def _delays_what_is_read(self) -> Control:
        if self.news_delay is not None and self.news_period is None:
            raise ValueError("news_delay needs a news_period: without one nothing is read")
        return self

    @model_validator(mode="after")
    def _regenerates_what_swaps_freed(self) -> Control:
        if self.regenerate and self.swapping == "all":
            raise ValueError('regenerate needs another swapping than "all", with which no swap frees a qubit early')
        return self

    @model_validator(mode="after")
    def _discards_what_relays_decide_on(self) -> Control:
        if self.discard and not self.relays_decide:
            raise ValueError(f'discard needs swapping = "agents": with {self.swapping!r} no relay decides')
        return self

    @property
    def relays_decide(self) -> bool:
        """Whether relays decide on swaps, and nobody on allocations."""
        return self.swapping == "agents"


class Outages(Section):
    """Every link fails and recovers on its own; times are geometric over slots with these means."""

    mean_up: Annotated[Positive, "s; mean time that a link is up"] = 200.0
    mean_down: Annotated[Positive, "s; mean time that a link is down"] = 5.0


class Silence(Section):
    """For a while some agents are silent, or the controller if one decides: their actions are not carried out.

    They wait instead. The silent agents follow from the demand seed, whoever plays. A controller is silent as a whole,
    whatever the share; one that advises nodes gives no advice, and the share of these nodes is silent, too.
    """

    share: Annotated[
        float, Field(strict=True, gt=0, le=1), "share of the nodes whose agents are silent, rounded up to whole ones"
    ] = 0.05
    start: Annotated[NonNegative, "s; when the silence begins"] = 30.0
    duration: Annotated[Positive, "s that it lasts"] = 20.0


class Observation(Section):
    """Shape of the forecast slice of the observation."""

    forecast_horizon: Annotated[Count, "slots ahead that forecasts reach"] = 8


class Reward(Section):
    """reward = Σ value of each delivery - contention_penalty · contended."""

    contention_penalty: Annotated[NonNegative, "of a contended resource in a slot"] = 0.05
    class_values: Annotated[
        tuple[NonNegative, ...], Field(max_length=MAX_CLASSES), "of a delivery in each class; empty: 1 each"
    ] = ()


class Episode(Section):
    """Length of an episode."""

    slots: Annotated[int, Field(strict=True, ge=1, le=MAX_SLOTS), "slots of an episode"] = 400


class SeedRange(Section):
    """Seeds start, start + 1, …, stop - 1, written short."""

    start: Annotated[Natural, "first seed"]
    stop: Annotated[int, Field(strict=True, ge=1, le=SEEDS), "last seed + 1"]

    @model_validator(mode="after")
    def _countable(self) -> SeedRange:
        if not 0 < self.stop - self.start <= sys.maxsize:
            raise ValueError(f"a seed range needs stop > start and < 2**63 seeds, given {self.start}..{self.stop}")
        return self

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> int:
        """The `index`-th seed, counted cyclically."""
        return self.start + int(index) % len(self)

    def __iter__(self) -> Iterator[int]:  # type: ignore[override]
        return iter(range(self.start, self.stop))

    def __contains__(self, seed: object) -> bool:
        return isinstance(seed, Integral) and self.start <= int(seed) < self.stop


class SplitSeeds(Section):
    """Topology and demand seeds of one split."""

    topology: SeedRange
    demand: SeedRange


class Seeds(Section):
    """Disjoint seed lists: what a learner trains on is never what it is scored on."""

    train: SplitSeeds = SplitSeeds(topology=SeedRange(start=0, stop=64), demand=SeedRange(start=0, stop=1_000_000))
    validation: SplitSeeds = SplitSeeds(
        topology=SeedRange(start=1_000, stop=1_100), demand=SeedRange(start=1_000_000, stop=1_100_000)
    )
    evaluation: SplitSeeds = SplitSeeds(
        topology=SeedRange(start=2_000, stop=2_100), demand=SeedRange(start=2_000_000, stop=2_100_000)
    )

    @model_validator(mode="after")
    def _disjoint(self) -> Seeds:
        splits = (self.train, self.validation, self.evaluation)
        for what in ("topology", "demand"):
            ranges = sorted((getattr(s, what) for s in splits), key=lambda r: r.start)
            if any(a.stop > b.start for a, b in pairwise(ranges)):
                raise ValueError(f"{what} seeds of train, validation and evaluation overlap")
        return self


# Fields that came after the first scenarios were named, and the values that leave the world as it was without them: a
# scenario that has these is the one it was, and keeps its hash.
NEUTRAL: dict[str, dict[str, Any]] = {
    "network": {"network_content": None},
    "hardware": {
        "purification_gates": "ideal",
        "emission": "poisson",
        "link_model": "midpoint",
        "bright_state": 0.05,
        "parallel_modes": None,
        "attempt_success": 1.0,
    },
    "control": {
        "swapping": "all",
        "discard": False,
        "regenerate": False,
        "switch": False,
        "cutoff": None,
        "news_period": None,
        "news_delay": None,
    },
    "demand": {"pairs_per_request": 1, "demand_matrix": None, "demand_content": None},
    "reward": {"class_values": []},
}
NETWORKS: dict[str, type[Section]] = {
    "mesh": MeshNetwork,
    "chain": ChainNetwork,
    "star": StarNetwork,
    "topohub": TopohubNetwork,
    "coronet": CoronetNetwork,
    "file": FileNetwork,
}
DEMANDS: dict[str, type[Section]] = {
    "sessions": SessionDemand,
    "trace": TraceDemand,
    "replay": ReplayDemand,
    "saturated": SaturatedDemand,
}
NetworkConfig = Annotated[
    MeshNetwork | ChainNetwork | StarNetwork | TopohubNetwork | CoronetNetwork | FileNetwork,
    Field(discriminator="generator"),
]
OPTIONAL: dict[str, Section] = {"outages": Outages(), "silence": Silence()}  # sections that a scenario may lack
WITH_FILES = ("network", "demand")  # sections that may name files, and hold their content in `SECTION_content`
TAGS = {"network": NETWORKS, "demand": DEMANDS}
DemandConfig = Annotated[SessionDemand | TraceDemand | ReplayDemand | SaturatedDemand, Field(discriminator="kind")]


class Scenario(Section):
    """One simulated world, complete but for its seeds.

    ``data_dir`` is the folder of data that is not shipped; without it, the variable DPEM_DATA names one. It says where
    the world is read from, not what it is: equality, hash and files of a scenario know nothing of it.
    """

    name: Annotated[Name, "what tables and files call it"]
    summary: Annotated[Text, "what it is, in a line"] = ""
    network: NetworkConfig = MeshNetwork()
    hardware: Hardware = Hardware()
    routing: Routing = Routing()
    demand: DemandConfig = SessionDemand()
    control: Control = Control()
    outages: Outages | None = None
    silence: Silence | None = None
    observation: Observation = Observation()
    reward: Reward = Reward()
    episode: Episode = Episode()
    seeds: Seeds = Seeds()
    data_dir: Folder | None = Field(default=None, exclude=True, repr=False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scenario) and self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash(self._fields())

    def _fields(self) -> tuple[Any, ...]:
        return tuple(value for name, value in self if name != "data_dir")

    @model_validator(mode="after")
    def _durations_fit_the_slot(self) -> Scenario:
        slot = self.control.slot_duration
        whole = [
            *(("demand.deadline", deadline) for deadline in self.demand.deadlines),
            ("control.time_to_live", self.control.time_to_live),
            ("control.telemetry_period", self.control.telemetry_period),
            ("control.news_period", self.control.news_period or slot),
            ("control.news_delay", self.control.news_delay or slot),
            ("silence.start", (self.silence and self.silence.start) or slot),
            ("silence.duration", self.silence.duration if self.silence else slot),
        ]
        if isinstance(self.demand, TraceDemand):
            whole.append(("demand.matrix_duration", self.demand.matrix_duration))
        for field, seconds in whole:
            slots = seconds / slot
            if not 0.5 < slots <= MAX_SLOTS or not math.isclose(slots, round(slots), rel_tol=1e-9):
                raise ValueError(f"{field} = {seconds} s must be a whole number (1..{MAX_SLOTS}) of slots of {slot} s")
        if self.in_slots(self.control.telemetry_period) < self.control.telemetry_delay:
            raise ValueError("control.telemetry_period must not be shorter than control.telemetry_delay")
        demand = self.demand
        means = {
            "demand.session_duration": getattr(demand, "session_duration", slot),
            "demand.session_duration·(1/session_share - 1), the time off,": (
                demand.session_duration * (1 / demand.session_share - 1) if isinstance(demand, SessionDemand) else slot
            ),
            "outages.mean_up": self.outages.mean_up if self.outages else slot,
            "outages.mean_down": self.outages.mean_down if self.outages else slot,
        }
        for field, seconds in means.items():
            if not slot <= seconds <= LARGEST * slot:
                raise ValueError(f"{field} = {seconds} s must last 1 to {LARGEST:g} slots of {slot} s")
        rates = {
            "hardware.generation_rate": self.hardware.generation_rate[1],
            "network.relay_generation_rate": getattr(self.network, "relay_generation_rate", None) or 0.0,
        }
        for field, rate in rates.items():
            if rate * slot > 500:
                raise ValueError(f"{field} = {rate} pairs/s: at most 500 pairs per slot of {slot} s can be simulated")
            if self.hardware.emission == "bernoulli" and rate * slot > 1:
                raise ValueError(
                    f'{field} = {rate} pairs/s: with emission "bernoulli" at most one pair per slot of {slot} s'
                )
        return self

    @model_validator(mode="after")
    def _silence_begins_before_the_end(self) -> Scenario:
        if self.silence and self.in_slots(self.silence.start) >= self.episode.slots:
            seconds = self.episode.slots * self.control.slot_duration
            raise ValueError(f"silence.start = {self.silence.start} s: expected less than the episode's {seconds:g} s")
        return self

    @model_validator(mode="after")
    def _every_class_has_a_value(self) -> Scenario:
        if self.reward.class_values and len(self.reward.class_values) != len(self.demand.fidelity_classes):
            raise ValueError("reward.class_values needs one value per fidelity class, or none at all")
        return self

    @model_validator(mode="after")
    def _every_quality_has_a_bright_state(self) -> Scenario:
        if self.hardware.light_is_chosen and len(self.hardware.bright_states) != self.control.qualities:
            raise ValueError("hardware.bright_state needs one number, or one per quality")
        return self

    @model_validator(mode="after")
    def _swaps_in_a_chain(self) -> Scenario:
        network, control, demand = self.network, self.control, self.demand
        chain = network.nodes if isinstance(network, ChainNetwork) else None
        if control.swapping == "nested" and chain != 5:
            told = f"a chain of {chain}" if chain else f"network.generator = {network.generator!r}"
            raise ValueError(f'control.swapping = "nested" needs a chain of 5 nodes; found {told}')
        if control.switch and not isinstance(network, StarNetwork):
            raise ValueError(f'control.switch needs network.generator = "star"; found {network.generator!r}')
        if control.relays_decide:
            needed = {
                'network.generator = "chain"': chain is not None,
                'demand.kind = "saturated"': isinstance(demand, SaturatedDemand),
                "control.rows = 1": control.rows == 1,
                "control.qualities = 1": control.qualities == 1,
                "control.regenerate = true": control.regenerate,
                "routing.max_hops >= network.nodes - 1": chain is None or self.routing.max_hops >= chain - 1,
            }
            missing = [what for what, given in needed.items() if not given]
            if missing:
                raise ValueError(f'control.swapping = "agents" needs {", ".join(missing)}')
        return self

    @model_validator(mode="after")
    def _can_be_played(self) -> Scenario:
        match self.network:
            case MeshNetwork() as mesh:
                self.require_playable(mesh.nodes, mesh.num_links, 2 * mesh.num_links / mesh.nodes)
            case ChainNetwork() as chain:
                self.require_playable(chain.nodes, chain.nodes - 1, 2)
            case StarNetwork() as star:
                self.require_playable(star.nodes, star.nodes - 1, star.nodes - 1)
        return self

    def require_playable(self, nodes: int, links: int, degree: float) -> None:
        """Raise ValueError if such a network takes more than minutes to draw, or an episode more than gigabytes.

        No node has more links than `degree`. Links join near nodes, so that about h² · `degree` of them lie within h
        hops.
        """
        demand, routing, control = self.demand, self.routing, self.control
        pairs = nodes * min(demand.peers, nodes - 1)
        routes, hops, slots = pairs * routing.routes_per_peer, routing.max_hops, self.episode.slots
        reach = min(nodes, degree * hops**2)
        search = hops * (nodes + reach * 2 * links / nodes)  # nodes and links looked at
        amounts: list[tuple[str, float, str, float]] = [
            ("nodes, links_per_node, peers, routes_per_peer, max_hops", (nodes + 2 * routes) * search,
             "steps to find the routes", MAX_STEPS),
            ("nodes, max_hops", nodes * reach * (8 * 2**hops + degree), "steps to judge the routes", MAX_STEPS),
            ("nodes, peers, routes_per_peer, max_hops", routes * (2 * hops + 8), "numbers for routes", MAX_CELLS),
            ("nodes, rows, max_hops", nodes * control.rows * (2 * hops + 8), "numbers for allocations", MAX_CELLS),
            ("nodes, memory", nodes * self.hardware.memory[1], "stored pairs", MAX_CELLS),
            ("nodes, peers, forecast_horizon, qualities, routes_per_peer",
             pairs * (self.observation.forecast_horizon + control.qualities) + 10 * routes, "features and actions",
             MAX_CELLS),
        ]  # fmt: skip
        if isinstance(demand, SessionDemand):
            seconds = slots * control.slot_duration
            sessions = pairs * seconds * demand.session_share / demand.session_duration
            amounts += [
                ("request_rate, pairs_per_request, slots", seconds * demand.request_rate * demand.pairs_per_request,
                 "requests per episode", MAX_REQUESTS),
                ("nodes, peers, slots, session_duration", sessions, "sessions per episode", MAX_REQUESTS),
            ]  # fmt: skip
        if isinstance(demand, SaturatedDemand):
            amounts.append(("nodes, slots", slots * self.requests_per_slot, "requests per episode", MAX_REQUESTS))
        if isinstance(demand, TraceDemand):
            rates = pairs * slots / self.in_slots(demand.matrix_duration)
            amounts.append(("peers, slots, matrix_duration", rates, "rates per episode", MAX_REQUESTS))
        for fields, amount, what, most in amounts:
            if amount > most:
                raise ValueError(f"too big: {amount:.3g} {what}; expected at most {most:g} (it follows from {fields})")

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits that change whenever a field other than name or summary does.

        Fields of `NEUTRAL` that say what held before they came are left out, as is an absent silence: the world is
        the same without them. Of files whose content is known it is that which counts, not where they lie.
        """
        fields = self.model_dump(mode="json", exclude={"name", "summary"})
        if self.silence is None:
            del fields["silence"]
        for section, neutral in NEUTRAL.items():
            for name, value in neutral.items():
                if name in fields[section] and fields[section][name] == value:
                    del fields[section][name]
        for section in WITH_FILES:
            if f"{section}_content" in fields[section]:
                for name in getattr(self, section).files:
                    fields[section][name] = fields[section].get(name) is not None
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def largest_generation_rate(self) -> float:
        """The largest g that any node can have, pairs/s."""
        return max(self.hardware.generation_rate[1], getattr(self.network, "relay_generation_rate", None) or 0.0)

    @property
    def largest_swap_rate(self) -> float:
        """The largest c that any node can have, swaps/s."""
        return max(self.hardware.swap_rate[1], getattr(self.network, "relay_swap_rate", None) or 0.0)

    @property
    def requests_per_slot(self) -> float:
        """Mean requests per slot over the whole network; 0 for a file, which has no mean."""
        if isinstance(self.demand, SaturatedDemand):
            leaves = getattr(self.network, "nodes", 0) - 1
            return leaves * (leaves - 1) / 2 if self.control.switch else 1.0
        return float(getattr(self.demand, "request_rate", 0.0)) * self.control.slot_duration

    @property
    def route_clock(self) -> tuple[int, int]:
        """Slots between two looks at how routes fare, and until one is known: of news, or of telemetry without them."""
        control = self.control
        if control.news_period is None:
            return self.in_slots(control.telemetry_period), control.telemetry_delay
        return self.in_slots(control.news_period), self.in_slots(control.news_delay or control.slot_duration)

    def in_slots(self, seconds: float) -> int:
        """A validated duration as a number of slots."""
        return round(seconds / self.control.slot_duration)

    def split_of(self, demand_seed: int) -> Split | None:
        """The split whose frozen list holds `demand_seed`, if any."""
        return next((s for s in SPLITS if demand_seed in getattr(self.seeds, s).demand), None)

    def override(self, /, **fields: Any) -> Scenario:
        """A copy with leaf fields replaced, wherever they live; the name records what was changed of the world.

        A new ``kind`` of demand or ``generator`` of networks keeps the fields it shares with the old. ``outages`` and
        ``silence`` take a dictionary of their fields, in which those that are not named have their defaults, or None; a
        name such as ``"silence.share"`` changes one field of what there is, or of the defaults. Raises ScenarioError
        for an unknown field or value.
        """
        if not fields:
            return self
        data = self.model_dump(exclude_none=True) | {"data_dir": self.data_dir}
        home = {
            leaf: section
            for section in ("network", "hardware", "routing", "demand", "control", "observation", "reward", "episode")
            for leaf in type(getattr(self, section)).model_fields
        }
        for section, tag, models in (("network", "generator", NETWORKS), ("demand", "kind", DEMANDS)):
            kind = fields.get(tag)
            if isinstance(kind, str) and kind in models:  # another kind: keep what it shares with the present one
                known = models[kind].model_fields
                data[section] = {leaf: value for leaf, value in data[section].items() if leaf in known}
                home |= dict.fromkeys(known, section)
        for section, tag in (("network", "generator"), ("demand", "kind")):
            if not fields.keys().isdisjoint((tag, *getattr(self, section).files)):
                data[section].pop(f"{section}_content", None)  # of other files
        for leaf, value in fields.items():
            section, dot, field = leaf.partition(".")
            if leaf in home:
                data[home[leaf]][leaf] = value
            elif leaf in (*OPTIONAL, "summary", "name", "seeds", "data_dir"):
                data[leaf] = value
            elif dot and section in OPTIONAL:
                whole = data.get(section) or {}
                data[section] = {**dict(whole), field: value} if isinstance(whole, dict | Section) else whole
            else:
                raise ScenarioError(f"override {leaf!r} is no field of a scenario; {nearest(leaf, [*home, *OPTIONAL])}")
        changed = validated(data, f"scenario {self.name}")
        changes = [leaf if value == {} else f"{leaf}={value}" for leaf, value in fields.items() if leaf != "data_dir"]
        if "name" in fields or not changes:
            return changed
        name = "+".join([self.name, *changes])
        return changed.model_copy(update={"name": _fitting(name)})

    def on_topology(self, topology_seed: int, split: Split = "evaluation") -> Scenario:
        """A copy whose split plays that one network, with its own demand; the name says so.

        For what is learned in one place, such as a node's forecaster. Other splits get other networks.
        """
        require_seed("topology seed", topology_seed)
        splits = [split, *(other for other in SPLITS if other != split)]
        seeds = {each: (int(topology_seed) + place) % SEEDS for place, each in enumerate(splits)}
        lists = {
            each: getattr(self.seeds, each).model_copy(update={"topology": SeedRange(start=seed, stop=seed + 1)})
            for each, seed in seeds.items()
        }
        return self.override(seeds=Seeds(**lists), name=on_network(self.name, topology_seed))

    def registered(self, value: str, networks: int) -> Scenario:
        """A copy whose evaluation split follows from a value that is known only later, such as a commit's hash.

        So many networks, whose seeds begin at the first 63 bits of the SHA-256 of VALUE:NAME:topology, and demands
        whose seeds begin at those of VALUE:NAME:demand. Whatever is settled before cannot be fitted to them.
        """
        size = {"topology": networks, "demand": len(self.seeds.evaluation.demand)}
        first = {what: following(f"{value}:{self.name}:{what}") % (SEEDS - size[what]) for what in size}
        drawn = SplitSeeds(**{what: SeedRange(start=first[what], stop=first[what] + size[what]) for what in size})
        seeds = self.seeds.model_dump() | {"evaluation": drawn}
        return self.override(seeds=seeds, name=_fitting(f"{self.name}+registered={value[:12]}"))

    def to_toml(self, contents: bool = True) -> str:
        """The scenario as TOML text; `from_toml` reads it back unchanged, without `contents` whatever its files say."""
        fields = self.model_dump(mode="json", exclude_none=True)
        if not contents:
            for section in WITH_FILES:
                fields[section].pop(f"{section}_content", None)
        return tomli_w.dumps(fields)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the scenario to a TOML file, whole or not at all; what its own files say, they go on saying."""
        with whole_file(path) as partial:
            partial.write_text(self.to_toml(contents=False), encoding="utf-8")


def validated(data: dict[str, Any], origin: str) -> Scenario:
    """A scenario from plain data; ScenarioError, in one line, if it is none."""
    try:
        return Scenario.model_validate(data)
    except ValidationError as error:
        raise ScenarioError(f"{origin}: {first_mistake(error, TAGS)}") from None


def on_network(name: str, topology_seed: int) -> str:
    """What `Scenario.on_topology` calls a scenario of this name."""
    return _fitting(f"{name}+topology={topology_seed}")


def _fitting(name: str) -> str:
    """A name made of others, made fit to be one: another for every other text."""
    fit = "".join(char if char.isprintable() else "?" for char in name)
    if fit == name and len(name) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:12]
    return f"{fit[: LONGEST_NAME - 13]}~{digest}"
