"""How metrics are told: in which order, by which label, with how many decimals; for tables, pages and pictures.

By themselves, for results do not follow from what they are called.
"""

from __future__ import annotations

from dpem_env.report.labels import Quantity

# What is told of an episode, in the order of tables.
METRICS = {
    quantity.name: quantity
    for quantity in (
        Quantity("delivery_rate", "delivery rate", 3),
        Quantity("weighted_delivery", "delivery, weighted", 3),
        Quantity("key_rate", "secret key", 2, unit="bit/s"),
        Quantity("ebit_rate", "ebits", 2, unit="1/s"),
        Quantity("contention", "contention", 4),
        Quantity("contention_sources", "contention of sources", 4),
        Quantity("contention_swaps", "contention of swap engines", 4),
        Quantity("contention_memories", "contention of memories", 4),
        Quantity("contention_lenient", "contention, refusals aside", 4),
        Quantity("collisions", "collisions", 4),
        Quantity("refusals", "refusals per node", 3, unit="1/s"),
        Quantity("contended_per_delivered", "contended / delivered", 3),
        Quantity("denied", "denied / submitted", 3),
        Quantity("messages", "messages per node", 1, unit="1/s"),
        Quantity("fidelity", "fidelity", 3),
        Quantity("latency", "latency", 3, unit="s"),
        Quantity("fairness", "fairness (Jain)", 3),
        Quantity("waste", "pairs wasted", 3),
        Quantity("wasted_elementary", "links timed out / emitted", 3),
        Quantity("from_stock", "served from stock", 3),
        Quantity("reward", "reward", 2),
        Quantity("charges", "contended resources charged", 1),
        Quantity("requests", "requests counted", 0),
    )
}
SCORE = Quantity("score", "score", 2)  # of a delivery rate, where episodes have a bound
HEADLINE = ("delivery_rate", "contention", "reward")  # what policies are judged by
QUANTITIES = METRICS | {SCORE.name: SCORE}
