"""How metrics are told: in which order, by which label, with how many decimals; for tables, pages and pictures.

By themselves, for results do not follow from what they are called.
"""

from __future__ import annotations

import math

from dpem_env.report.labels import Quantity

SHARE, POSITIVE = (0.0, 1.0), (0.0, math.inf)

# What is told of an episode, in the order of tables.
METRICS = {
    quantity.name: quantity
    for quantity in (
        Quantity("delivery_rate", "delivery rate", 3, possible=SHARE),
        Quantity("weighted_delivery", "delivery, weighted", 3, possible=SHARE),
        Quantity("key_rate", "secret key", 2, unit="bit/s", possible=POSITIVE),
        Quantity("ebit_rate", "ebits", 2, unit="1/s", possible=POSITIVE),
        Quantity("contention", "contention", 4, possible=SHARE),
        Quantity("contention_sources", "contention of sources", 4, possible=SHARE),
        Quantity("contention_swaps", "contention of swap engines", 4, possible=SHARE),
        Quantity("contention_memories", "contention of memories", 4, possible=SHARE),
        Quantity("contention_lenient", "contention, refusals aside", 4, possible=SHARE),
        Quantity("collisions", "collisions", 4, possible=SHARE),
        Quantity("refusals", "refusals per node", 3, unit="1/s", possible=POSITIVE),
        Quantity("contended_per_delivered", "contended / delivered", 3, possible=POSITIVE),
        Quantity("denied", "denied / submitted", 3, possible=SHARE),
        Quantity("messages", "messages per node", 1, unit="1/s", possible=POSITIVE),
        Quantity("fidelity", "fidelity", 3, possible=SHARE),
        Quantity("latency", "latency", 3, unit="s", possible=POSITIVE),
        Quantity("fairness", "fairness (Jain)", 3, possible=SHARE),
        Quantity("waste", "pairs wasted", 3, possible=SHARE),
        Quantity("wasted_elementary", "links timed out / emitted", 3, possible=SHARE),
        Quantity("from_stock", "served from stock", 3, possible=SHARE),
        Quantity("reward", "reward", 2),
        Quantity("charges", "contended resources charged", 1, possible=POSITIVE),
        Quantity("requests", "requests counted", 0, possible=POSITIVE),
    )
}
SCORE = Quantity("score", "score", 2)  # of a delivery rate, where episodes have a bound
HEADLINE = ("delivery_rate", "contention", "reward")  # what policies are judged by
QUANTITIES = METRICS | {SCORE.name: SCORE}
