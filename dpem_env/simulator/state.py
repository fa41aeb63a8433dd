"""What the simulator knows: structs of arrays, one leading axis of B environments.

Each field's annotation gives dtype and axes after the leading B: N nodes, D peer places per node, K allocation rows
per node, k routes per pair, H hops at most (H1 = H + 1 nodes), L links, C fidelity classes, S largest memory,
Q qualities, R requests, T tallies, G readings, g of a chain; NK and NKH are products. Phase functions see one
environment: the same structs without the leading axis (`world_of`, `state_of`, `work_of`). Empty places hold -1 unless
a comment says otherwise.
"""

from __future__ import annotations

import math
from enum import IntEnum
from functools import cache
from typing import Annotated, Any, NamedTuple, get_type_hints

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpem_env.simulator.addresses import environment
from dpem_env.support.compiled import numbers_of

I8 = NDArray[np.int8]
U16 = NDArray[np.uint16]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]
F64 = NDArray[np.float64]
F32 = NDArray[np.float32]


ALIGNMENT = 64  # bytes; of arrays, as long as a line of the processor's cache


class Rules(NamedTuple):
    """Constants of the scenario, in slots and Werner parameters; the same for every environment."""

    qualities: int  # Q
    time_to_live: int  # slots
    news: bool  # nodes ask those on their routes, also when a command arrives; else telemetry tells of routes
    route_period: int  # slots between two looks at how routes fare
    route_delay: int  # slots until one is known
    token_cap: float
    singly: bool  # relays swap each by itself; else all of a route at once
    nested: bool  # the middle one of three relays waits while both others can swap
    agents: bool  # relays decide on swaps, ends ask by themselves: see `kernel.step_from_swaps`
    discard: bool  # and may discard what they hold
    regenerate: bool  # links are made again inside longer segments
    switch: bool  # the hub of a star, node 0, swaps what two leaves have stored
    cutoff: int  # slots, largest age of a segment
    pumped: bool  # quality q takes q - 1 rounds of purification; else it is how bright links are
    bernoulli: bool  # one attempt per slot and link that asks for it
    swap_success: float
    swap_factor: float  # g_sw
    purification_gate: float  # gate and readout fidelity of purification rounds; 1 where they are ideal
    purification_readout: float
    link_failure: float  # probability per slot that an up link goes down
    link_repair: float  # probability per slot that a down link comes up
    lifetime: float  # s, time-to-live: scale of the loads
    class_werner: F64  # (C,) lowest Werner parameter each class accepts


class World(NamedTuple):
    """What stays fixed during an episode: the network as the kernel reads it."""

    emission_mean: Annotated[F64, "N"]  # pairs emitted per slot, g·dt
    no_emission: Annotated[F64, "N"]  # probability that none is, exp(-g·dt): see `World.emit`
    token_gain: Annotated[F64, "N"]  # swap tokens gained per slot, c·dt
    memory: Annotated[I32, "N"]  # qubits
    node_decay: Annotated[F64, "N"]  # factor on w per slot from one memory
    generation_rate: Annotated[F64, "N"]  # pairs/s
    swap_rate: Annotated[F64, "N"]  # swaps/s
    coherence_time: Annotated[F64, "N"]  # s
    link_emitter: Annotated[I32, "L"]  # node whose source feeds the link
    link_transmission: Annotated[F64, "Q L"]  # by the quality that is asked for
    fresh_werner: Annotated[F64, "Q L"]  # of an arriving pair
    link_decay: Annotated[F64, "L"]  # factor on w per slot
    peers: Annotated[I32, "N D"]  # node index
    route_hops: Annotated[I8, "N D k"]  # 0 where there is no route
    route_links: Annotated[I32, "N D k H"]
    route_nodes: Annotated[U16, "N D k H1"]
    route_shared: Annotated[U16, "N D k"]  # the hops whose link shares its source with another of the route, as bits
    route_build_time: Annotated[F64, "N D k"]  # s
    route_quality: Annotated[I8, "N D k C"]  # smallest quality that meets each class fresh, 0 if none
    request_slot: Annotated[I32, "R"]  # slot of arrival; the requests of the episode, in order of arrival
    request_source: Annotated[I32, "R"]
    request_peer: Annotated[I32, "R"]  # place among the source's peers
    request_class: Annotated[I32, "R"]
    request_last_slot: Annotated[I32, "R"]
    request_by_expiry: Annotated[I32, "R"]  # request indices in order of last slot
    num_requests: Annotated[I64, "1"]
    horizon: Annotated[I64, "1"]  # slots in the episode
    outcome_key: Annotated[U64, "1"]  # keys of the random streams
    emission_key: Annotated[U64, "1"]
    outage_key: Annotated[U64, "1"]
    order_key: Annotated[U64, "1"]

    def emit(self, mean: ArrayLike) -> None:
        """From now on every source, (..., N), emits so many pairs per slot in the mean."""
        self.emission_mean[...] = mean
        self.no_emission[...] = probability_of_none(self.emission_mean)


class State(NamedTuple):
    """What evolves. Everything an episode's future depends on is here or in World."""

    slot: Annotated[I64, "1"]  # the slot about to be decided
    free_memory: Annotated[I32, "N"]  # qubits
    tokens: Annotated[F64, "N"]  # saved-up swaps
    link_up: Annotated[I8, "L"]  # 1 up, 0 down
    # pending requests: a queue per (node, peer), most urgent first, linked through request indices
    next_arrival: Annotated[I64, "1"]  # first request that has not arrived
    next_expiry: Annotated[I64, "1"]  # first place of request_by_expiry not yet past
    queue_head: Annotated[I32, "N D"]
    queue_tail: Annotated[I32, "N D"]
    queue_next: Annotated[I32, "R"]
    pending: Annotated[I32, "N D C"]  # requests waiting; 0 when empty
    request_status: Annotated[I32, "R"]  # a Status, or the slot in which it was served
    request_werner: Annotated[F64, "R"]  # w of the pair at delivery; 0 until then
    request_from_stock: Annotated[I8, "R"]  # 1 if a stored pair served it
    # open allocations
    alloc_peer: Annotated[I32, "N K"]  # place among the node's peers; -1 marks a free row
    alloc_quality: Annotated[I32, "N K"]  # 1..Q
    alloc_route: Annotated[I32, "N K"]
    alloc_slot: Annotated[I32, "N K"]  # slot of admission
    alloc_complete: Annotated[I32, "N K"]  # links in complete segments
    # segments, links or what swaps made of them, by the hop of their left end (see `segments`)
    link_rounds: Annotated[I32, "N K H"]  # purification rounds done; -1 where none starts
    link_hops: Annotated[I8, "N K H"]  # links it spans; 0 where none starts
    link_werner: Annotated[F64, "N K H"]
    link_slot: Annotated[I32, "N K H"]  # slot in which its oldest pair arrived
    age_order: Annotated[I32, "NK"]  # open allocations node·K + row, oldest first
    num_open: Annotated[I64, "1"]
    # stored pairs: the first stock_count places of each node, in no particular order
    stock_count: Annotated[I32, "N"]
    stock_peer: Annotated[I32, "N S"]  # place among the owner's peers
    stock_werner: Annotated[F64, "N S"]
    stock_hops: Annotated[I32, "N S"]  # elementary pairs inside
    # telemetry: current route per pair, as of the snapshot on its way and of the one that can be read
    flying_slot: Annotated[I64, "1"]  # slot after which it was taken; also of the last reading
    flying_route: Annotated[I32, "N D"]
    flying_up: Annotated[I8, "N D"]
    flying_load: Annotated[F32, "N D"]
    seen_slot: Annotated[I64, "1"]  # also of the reading that is known
    seen_route: Annotated[I32, "N D"]
    seen_up: Annotated[I8, "N D"]
    seen_load: Annotated[F32, "N D"]
    # news: the last G readings in turn, none if nobody asks
    read_allocations: Annotated[I32, "G N K 5"]  # peer place (-1: closed), route, links wanted, swaps awaited, ready
    read_memory: Annotated[I32, "G N"]  # free qubits
    read_link_up: Annotated[I8, "G L"]
    # news of a chain whose relays decide on swaps: its last g readings in turn, none elsewhere and if nobody asks
    read_chain: Annotated[I32, "g H 2"]  # links of the segment by its left end (0: none), slot of its oldest pair
    # what the last step did
    verdict: Annotated[I8, "N"]  # a Verdict on each decision
    delivered: Annotated[I32, "N"]  # requests served
    contended: Annotated[I32, "N"]  # contended resources the agent claimed
    # totals of the episode
    tally: Annotated[I64, "T"]


class Workspace(NamedTuple):
    """Scratch of one slot; carries nothing from one slot to the next."""

    actor: Annotated[I32, "N"]  # nodes with a new allocation, in order of admission
    actor_priority: Annotated[I64, "N"]
    actor_key: Annotated[U64, "N"]
    first_refused: Annotated[I32, "N"]  # agent refused memory at this node, -2 if several
    tries: Annotated[I32, "N k"]  # routes on which this agent's allocation is to be tried, in order
    refused_by: Annotated[I32, "N k"]  # resources that refused this agent, numbered as in `kernel.claimed_by_others`
    refused_count: Annotated[I32, "N"]
    source_holder: Annotated[I32, "N"]  # agent that claims the node's source as the slot begins, -2 if several
    swap_holder: Annotated[I32, "N"]  # its swap engine
    source_read: Annotated[I32, "N"]  # the same by the reading that nodes know
    swap_read: Annotated[I32, "N"]
    source_refused: Annotated[I8, "N"]  # 1 if the source refused an allocation that was denied
    swap_refused: Annotated[I8, "N"]
    node_flag: Annotated[I8, "N"]  # contended resource of the kind at hand
    stamp: Annotated[I32, "N"]
    claimant: Annotated[I32, "N"]  # agent claiming the node's resource, -2 if several
    claim_head: Annotated[I32, "N"]  # first claim on the node's source
    claim_tail: Annotated[I32, "N"]
    claim_count: Annotated[I32, "N"]
    claim_alloc: Annotated[I32, "NKH"]  # node·K + row
    claim_hop: Annotated[I32, "NKH"]
    claim_next: Annotated[I32, "NKH"]
    claim_offers: Annotated[I32, "NKH"]  # pairs offered this slot
    choice: Annotated[I8, "N"]  # a Choice of every relay that decides, legal ones only
    ready: Annotated[I32, "N K"]  # relays that are ready at the start of phase 4 (see `segments.relays_ready`)
    finished_werner: Annotated[F64, "NK"]  # end-to-end w by place in age_order; -1 where not finished
    source_claims: Annotated[I32, "N"]  # incomplete links on each source
    swap_claims: Annotated[I32, "N"]  # open allocations relayed through each node
    allocations: Annotated[I32, "N K 5"]  # as `read_allocations`, now
    waiting: Annotated[I32, "N"]  # as source_claims and swap_claims, of a reading
    relayed: Annotated[I32, "N"]
    source_claimed: Annotated[I32, "N"]  # links that claim each source, in a reading
    swap_claimed: Annotated[I32, "N"]  # allocations that have still to swap at each node
    link_wait: Annotated[F64, "L 2"]  # s, mean wait for a link if one or two more claim its source
    link_chance: Annotated[F64, "L 2"]  # that it comes within a time-to-live
    memory_load: Annotated[F64, "N"]  # share of each memory in use
    relay_load: Annotated[F64, "N"]  # the worse of memory and swap engine
    link_load: Annotated[F64, "L"]  # of the link's source
    survey_route: Annotated[I32, "N D"]
    survey_up: Annotated[I8, "N D"]
    survey_load: Annotated[F32, "N D"]


class Status(IntEnum):
    """Fate of a request that has not been served."""

    PENDING = -1
    EXPIRED = -2
    NOT_ARRIVED = -3


class Verdict(IntEnum):
    """What became of a decision."""

    WAIT = 0
    ADMITTED = 1
    DENIED = 2
    ILLEGAL = 3
    WITHHELD = 4  # a conditional command that the node did not submit


class Tally(IntEnum):
    """Counts over an episode. Elementary pairs: EMITTED is the sum of where they went plus those still held."""

    SUBMITTED = 0
    DENIED = 1
    ILLEGAL = 2
    CONTENDED_SOURCES = 3  # (resource, slot) pairs
    CONTENDED_SWAPS = 4
    CONTENDED_MEMORIES = 5
    COLLIDED_SOURCES = 6  # claimed by two agents or more, served or not
    COLLIDED_SWAPS = 7
    ARRIVED = 8  # requests
    DELIVERED = 9
    FROM_STOCK = 10
    EXPIRED = 11
    EMITTED = 12  # elementary pairs
    UNCLAIMED = 13
    LOST_IN_FIBRE = 14
    PURIFIED_AWAY = 15  # consumed in purification rounds, won or lost
    SWAPPED_AWAY = 16  # in failed swaps
    TIMED_OUT = 17  # held by allocations at the end of their time
    DELIVERED_ELEMENTARY = 18  # inside pairs that served a request
    DROPPED_ELEMENTARY = 19  # inside finished or stored pairs that no class could use
    SWAPS = 20  # attempts, one per relay
    FINISHED = 21  # end-to-end pairs made
    STORED = 22  # pairs put into stock
    DROPPED_PAIRS = 23  # finished or stored pairs that served nobody
    EXPIRED_ALLOCATIONS = 24
    CUT_OFF = 25  # elementary pairs in segments older than the cutoff, or discarded by a relay
    LEFT_OVER = 26  # inside a longer segment when it was finished
    REFUSED = 27  # routes on which a source or swap engine refused a conditional allocation
    CONTENDED_BY_REFUSAL = 28  # sources and swap engines (resource, slot) that are contended for no other reason
    WITHHELD = 29  # commands
    COMMAND_MESSAGES = 30  # nodes asked by others that read their routes on the arrival of a conditional command


STATUS, VERDICT, TALLY = numbers_of(Status), numbers_of(Verdict), numbers_of(Tally)  # for compiled code

# Ends of an emitted pair; those not yet at an end are held.
WHERE_PAIRS_GO = (
    Tally.UNCLAIMED,
    Tally.LOST_IN_FIBRE,
    Tally.PURIFIED_AWAY,
    Tally.SWAPPED_AWAY,
    Tally.TIMED_OUT,
    Tally.DELIVERED_ELEMENTARY,
    Tally.DROPPED_ELEMENTARY,
    Tally.CUT_OFF,
    Tally.LEFT_OVER,
)


def probability_of_none(mean: F64) -> F64:
    """exp(-mean) of Poisson counts, by the C library: NumPy's last bits differ between processors."""
    return np.array([math.exp(-one) for one in mean.flat]).reshape(mean.shape)


def shapes(struct: Any, sizes: dict[str, int]) -> dict[str, tuple[int, ...]]:
    """Shape of every field of World, State or Workspace, without the leading axis, for given axis sizes."""
    return {name: tuple(sizes[axis] for axis in axes) for name, (_, axes) in _fields(struct).items()}


def allocate(struct: Any, batch: int, sizes: dict[str, int]) -> Any:
    """A struct of zeroed arrays with a leading axis of `batch` environments, all in one piece of memory, its base.

    One environment after the other, so that what is played together lies together.
    """
    own = shapes(struct, sizes)
    wanted = {name: (own[name], np.dtype(dtype)) for name, (dtype, _) in _fields(struct).items()}
    taken = [-(-math.prod(shape) * dtype.itemsize // ALIGNMENT) * ALIGNMENT for shape, dtype in wanted.values()]
    memory, start = np.zeros((batch, sum(taken)), dtype=np.uint8), np.cumsum([0, *taken])
    arrays = {}
    for (name, (shape, dtype)), first in zip(wanted.items(), start.tolist(), strict=False):
        of_one = memory[:, first : first + math.prod(shape) * dtype.itemsize]
        arrays[name] = of_one.view(dtype).reshape(batch, *shape)
    return struct(**arrays)


@cache
def _fields(struct: Any) -> dict[str, tuple[Any, tuple[str, ...]]]:
    """Dtype and axes of every field, from its annotation."""
    hints: dict[str, Any] = get_type_hints(struct, include_extras=True)
    return {
        name: (hint.__origin__.__args__[1].__args__[0], tuple(hint.__metadata__[0].split()))
        for name, hint in hints.items()
    }


def _environment(struct: Any) -> Any:
    return environment(struct, {name: (dtype, len(axes)) for name, (dtype, axes) in _fields(struct).items()})


# Compiled functions (table, b) -> the struct of environment b, from a table of `addresses.table_of`.
world_of, state_of, work_of = _environment(World), _environment(State), _environment(Workspace)
