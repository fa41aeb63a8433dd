"""Admission, and who is charged for what in a slot, once more: sets of claims, in plain Python, from a state."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from dpem_env.simulator import Condition, Verdict, randomness
from dpem_env.simulator.state import Rules, State, World

from .hand_drawn import bits, poisson_count, uniform

Resource = tuple[str, int]  # "memory", "source" or "swap engine" of a node
Claims = dict[Resource, list[int]]  # the agents that claim it, once per claim


class Command(NamedTuple):
    """What a node is to do: wait if it names no peer."""

    place: int | None = None
    quality: int = 1
    routes: tuple[int, ...] = ()  # best first; none: auto
    condition: int = 0
    priority: int = 0


class Outcome(NamedTuple):
    """What became of the commands of a slot."""

    verdicts: list[Verdict]
    opened: dict[int, int]  # node -> route
    refusals: dict[int, list[Resource]]  # node -> the first to refuse each route that was tried
    asked: int  # nodes, by those who read their routes


class Slot:
    """A slot of a world in which admission is decided from claims frozen as it begins."""

    def __init__(self, rules: Rules, world: World, state: State) -> None:
        self.rules, self.world = rules, world
        self.frozen = claims_on_sources(rules, world, state) | claims_on_swaps(rules, world, state)

    def path(self, i: int, d: int, r: int) -> tuple[list[int], list[int]]:
        """Nodes and links of a route."""
        hops = int(self.world.route_hops[i, d, r])
        return self.world.route_nodes[i, d, r, : hops + 1].tolist(), self.world.route_links[i, d, r, :hops].tolist()

    def admit(self, state: State, commands: list[Command]) -> Outcome:
        """Decide on a slot's commands; the state is that before, and stays as it is."""
        free = dict(enumerate(state.free_memory.tolist()))
        outcome = Outcome([Verdict.WAIT] * len(commands), {}, {}, 0)
        tries, asked = {}, 0
        for i, command in enumerate(commands):
            if command.place is None:
                continue
            d = command.place
            every = [r for r, hops in enumerate(self.world.route_hops[i, d]) if hops > 0]
            routes = list(command.routes) or every
            named_well = set(routes) <= set(every) and len(set(routes)) == len(routes)
            if self.world.peers[i, d] < 0 or not named_well or (state.alloc_peer[i] >= 0).all():
                outcome.verdicts[i] = Verdict.ILLEGAL
                continue
            pending = state.queue_head[i, d] >= 0
            withheld = command.condition & Condition.READ_PENDING and not pending
            if command.condition & Condition.READ_FREE and not withheld:
                asked += len({node for r in routes for node in self.path(i, d, r)[0][1:]})
                routes = [r for r in routes if self.up(state, i, d, r) and not self.refuses(free, i, d, r, True)]
                withheld = not routes
            if withheld:
                outcome.verdicts[i] = Verdict.WITHHELD
            else:
                tries[i] = routes
        key, slot = self.world.order_key[0], int(state.slot[0])
        for i in sorted(tries, key=lambda i: (commands[i].priority, bits(key, slot, randomness.ORDER, i, 0, 0, 0))):
            outcome.verdicts[i], outcome.refusals[i] = Verdict.DENIED, []
            d = commands[i].place
            for r in tries[i]:
                if not self.up(state, i, d, r):
                    continue
                refusing = self.refuses(free, i, d, r, bool(commands[i].condition & Condition.FREE))
                if refusing:
                    outcome.refusals[i].append(refusing)
                    continue
                for node, qubits in self.qubits(i, d, r):
                    free[node] -= qubits
                outcome.verdicts[i], outcome.opened[i] = Verdict.ADMITTED, r
                break
        return outcome._replace(asked=asked)

    def up(self, state: State, i: int, d: int, r: int) -> bool:
        """Whether all links of a route are up."""
        return all(state.link_up[link] for link in self.path(i, d, r)[1])

    def qubits(self, i: int, d: int, r: int) -> list[tuple[int, int]]:
        """What a route holds, node by node."""
        nodes, _ = self.path(i, d, r)
        return [(node, 1 if node in (nodes[0], nodes[-1]) else 2) for node in nodes]

    def refuses(self, free: dict[int, int], i: int, d: int, r: int, only_if_free: bool) -> Resource | None:
        """The first resource in the way."""
        for node, qubits in self.qubits(i, d, r):
            if free[node] < qubits:
                return "memory", node
        if only_if_free:
            nodes, links = self.path(i, d, r)
            for h, link in enumerate(links):
                asked: list[Resource] = [("source", int(self.world.link_emitter[link]))]
                if h > 0:
                    asked.insert(0, ("swap engine", nodes[h]))
                for resource in asked:
                    if set(self.frozen.get(resource, [])) - {i}:
                        return resource
        return None


def allocations(world: World, state: State) -> Iterator[tuple[int, int, list[int], list[int]]]:
    """Owner, row, nodes and links of every open allocation, oldest first."""
    rows = state.alloc_peer.shape[1]
    for alloc in state.age_order[: state.num_open[0]].tolist():
        i, row = divmod(alloc, rows)
        course = i, int(state.alloc_peer[i, row]), int(state.alloc_route[i, row])
        hops = int(world.route_hops[course])
        yield i, row, world.route_nodes[course][: hops + 1].tolist(), world.route_links[course][:hops].tolist()


def complete(state: State, i: int, row: int) -> dict[int, int]:
    """First hop -> links of the complete segments of an allocation."""
    rounds, hops = state.link_rounds[i, row].tolist(), state.link_hops[i, row].tolist()
    return {h: hops[h] for h in range(len(rounds)) if rounds[h] == state.alloc_quality[i, row] - 1}


def claims_on_sources(rules: Rules, world: World, state: State) -> Claims:
    """Every link that is up and wants pairs."""
    claims: Claims = defaultdict(list)
    for i, row, _, links in allocations(world, state):
        taken: set[int] = set()
        for start, hops in complete(state, i, row).items():
            whole = range(start, start + hops)
            taken |= {whole[0], whole[-1]} if rules.regenerate else set(whole)
        for h, link in enumerate(links):
            if h not in taken and state.link_up[link]:
                claims["source", int(world.link_emitter[link])].append(i)
    return dict(claims)


def ready(rules: Rules, state: State, i: int, row: int, hops: int) -> list[int]:
    """The relays of an allocation that can swap."""
    segments = complete(state, i, row)
    if not rules.singly and len(segments) < hops:
        return []
    return [h for h in range(1, hops) if h in segments and any(s + n == h for s, n in segments.items())]


def claims_on_swaps(rules: Rules, world: World, state: State) -> Claims:
    """Every relay that can swap."""
    claims: Claims = defaultdict(list)
    for i, row, nodes, links in allocations(world, state):
        for h in ready(rules, state, i, row, len(links)):
            claims["swap engine", nodes[h]].append(i)
    return dict(claims)


class Contention(NamedTuple):
    """Contended resources, each with the agents that are charged; and those contended by refusals alone."""

    charged: dict[Resource, set[int]]
    by_refusal: set[Resource]
    collided: set[Resource]

    def per_agent(self) -> Counter[int]:
        """What every agent is charged."""
        return Counter(agent for agents in self.charged.values() for agent in agents)


def memories(slot: Slot, after: State, outcome: Outcome) -> Contention:
    """Contended memories, from the state after admission."""
    claims: dict[int, Counter[int]] = defaultdict(Counter)
    for i, _, nodes, _ in allocations(slot.world, after):
        for node in nodes:
            claims[node][i] += 1
    for i, count in enumerate(after.stock_count.tolist()):
        for place in after.stock_peer[i, :count].tolist():
            claims[i][i] += 1
            claims[int(slot.world.peers[i, place])][i] += 1
    for i, refusals in outcome.refusals.items():
        for kind, node in refusals:
            if kind == "memory":
                claims[node][i] += 1
    refused = _refused(outcome, "memory")
    contended = {node for (_, node), agents in refused.items() for i in agents if {*claims[node]} - {i}}
    return Contention({("memory", node): set(claims[node]) for node in contended}, set(), set())


def sources(slot: Slot, before: State, outcome: Outcome) -> Contention:
    """Contended sources, from the state before generation."""
    claims = claims_on_sources(slot.rules, slot.world, before)

    def short(node: int) -> bool:
        mean, key = slot.world.emission_mean[node], slot.world.emission_key[0]
        emitted = poisson_count(mean, uniform(key, int(before.slot[0]), randomness.EMISSION, node, 0, 0, 0))
        return bool(emitted < len(claims["source", node])) and not slot.rules.bernoulli

    return _contention(claims, {(kind, n) for kind, n in claims if short(n)}, _refused(outcome, "source"))


def swaps(slot: Slot, before: State, outcome: Outcome) -> Contention:
    """Contended swap engines, from the state before swapping."""
    claims = claims_on_swaps(slot.rules, slot.world, before)
    tokens = [
        min(have + gain, slot.rules.token_cap)
        for have, gain in zip(before.tokens.tolist(), slot.world.token_gain.tolist(), strict=True)
    ]
    short: set[Resource] = set()
    for i, row, nodes, links in allocations(slot.world, before):
        relays = [nodes[h] for h in ready(slot.rules, before, i, row, len(links))]
        paid = [relay for relay in relays if tokens[relay] >= 1.0]
        short |= {("swap engine", relay) for relay in relays if relay not in paid}
        for relay in paid if slot.rules.singly or len(paid) == len(relays) else []:
            tokens[relay] -= 1.0
    return _contention(claims, short, _refused(outcome, "swap engine"))


def _refused(outcome: Outcome, kind: str) -> dict[Resource, set[int]]:
    """Resources of a kind that refused allocations which were denied, and whose these were."""
    refused: dict[Resource, set[int]] = defaultdict(set)
    for i, refusals in outcome.refusals.items():
        for resource in refusals:
            if outcome.verdicts[i] == Verdict.DENIED and resource[0] == kind:
                refused[resource].add(i)
    return refused


def _contention(claims: Claims, short: set[Resource], refused: dict[Resource, set[int]]) -> Contention:
    collided = {resource for resource, agents in claims.items() if len(set(agents)) > 1}
    unserved = collided & short
    charged = {resource: {*claims[resource]} | refused.get(resource, set()) for resource in unserved | refused.keys()}
    return Contention(charged, refused.keys() - unserved, collided)
