"""Federated averaging with differential privacy: nodes share a part of their policies, not their traffic.

Each round a random cohort of nodes learns on from the global weights and sends its update, local minus global. Updates
are clipped to one L2 norm over all shared tensors, summed, noised and divided by the expected size of the cohort:
DP-FedAvg (McMahan et al., ICLR 2018) with the Gaussian mechanism of DP-SGD (Abadi et al., CCS 2016). What rounds cost
together is counted by Rényi orders (Mironov, Talwar & Zhang 2019) or by privacy loss distributions (Koskela, Jälkö &
Honkela, AISTATS 2020; Doroshenko et al., PoPETs 2022). The clip can follow a quantile of the norms (Andrew et al.,
NeurIPS 2021).

`spec` says what is shared, `privacy` how it is protected, `mechanism` clips and noises, `accounting` counts what rounds
cost, `ledger` keeps what was spent and what was released for it, `averaging` runs the rounds and `reports` tells of
them. Nothing here needs torch but the models.

What is protected: one node's updates over its whole participation, given the updates of all others. Whoever sees every
global vector can hardly tell whether that node's updates were counted or replaced by zeros. In mode "central" this
trusts the aggregator, and that who joined a round stays secret; in mode "local" it trusts the node alone.
What is not: the effect of a node's traffic on the network, which other nodes observe and learn from; the choice of
hyperparameters by looking at results; weights a node does not share, and how it acts; starting weights that were
learned from nodes' data. Nor is anything but those global vectors: the checkpoints and policies of a training in one
process hold every node's own weights without noise, and its learning curves, event files and progress tell what they
came to. Noise comes from the operating system's cryptographic generator, and by sums that make attacks on its low bits
hopeless; it is floating-point noise all the same (`mechanism`).
"""

from dpem_agents.federated.averaging import FederatedAverager
from dpem_agents.federated.ledger import BudgetExhausted, Ledger
from dpem_agents.federated.mechanism import NoisedUpdate, node_update
from dpem_agents.federated.privacy import AdaptiveClipping, DPConfig
from dpem_agents.federated.reports import OperatorDiagnostics, RoundReport
from dpem_agents.federated.spec import POLICY_BODY, POLICY_HEAD, WHOLE_POLICY, SharedSpec

__all__ = [
    "POLICY_BODY",
    "POLICY_HEAD",
    "WHOLE_POLICY",
    "AdaptiveClipping",
    "BudgetExhausted",
    "DPConfig",
    "FederatedAverager",
    "Ledger",
    "NoisedUpdate",
    "OperatorDiagnostics",
    "RoundReport",
    "SharedSpec",
    "node_update",
]
