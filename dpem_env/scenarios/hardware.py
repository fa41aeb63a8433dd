"""Hardware as it has been shown: presets of published experiments, each number with its source.

A preset is a set of scenario fields, ``get("mesh20-v0", **fields("trapped-ions"))``. What was shown of a platform was
shown of one link or one node, in different laboratories: as a network it is an extrapolation that nobody has built.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from dpem_env.support.errors import ScenarioError, nearest

STEPHENSON = "Stephenson et al., PRL 124, 110501 (2020), doi:10.1103/PhysRevLett.124.110501"
DRMOTA = "Drmota et al., PRL 130, 090803 (2023), doi:10.1103/PhysRevLett.130.090803"
HUMPHREYS = "Humphreys et al., Nature 558, 268 (2018), doi:10.1038/s41586-018-0200-5"
KALB = "Kalb et al., Science 356, 928 (2017), doi:10.1126/science.aan0070"
VAN_LEENT = "van Leent et al., Nature 607, 69 (2022), doi:10.1038/s41586-022-04764-4"
LAGO_RIVERA = "Lago-Rivera et al., Nature 594, 37 (2021), doi:10.1038/s41586-021-03481-8"
ABSTRACT, SECOND, CHOSEN = "in its abstract", "as others quote it", "not published: chosen here"
NETSQUID = "as the parameter set NVParameterSet2019 of NetSquid-NV quotes it"


class Number(NamedTuple):
    """A number of a preset, and where it is from."""

    value: Any
    meaning: str
    source: str  # empty if it was chosen
    read: str  # how far the source could be read


PRESETS: dict[str, dict[str, Number]] = {
    "trapped-ions": {
        "generation_rate": Number((182.0, 182.0), "182 pairs/s between two ⁸⁸Sr⁺ ions", STEPHENSON, SECOND),
        "link_fidelity": Number(0.94, "of these pairs", STEPHENSON, SECOND),
        "coherence_time": Number(
            34.0, "s; ion-photon fidelity of 0.81 after 10 s in ⁴³Ca⁺, if it was perfect before", DRMOTA, ABSTRACT
        ),
        "gate_fidelity": Number(0.977, "of a transfer from the network ion to the memory ion", DRMOTA, ABSTRACT),
        "readout_fidelity": Number(1.0, "counted in the transfer", "", CHOSEN),
        "swap_success": Number(1.0, "gates and readouts of ions do not fail", "", CHOSEN),
        "swap_rate": Number((100.0, 100.0), "swaps/s, faster than links", "", CHOSEN),
        "memory": Number((4, 8), "qubits; two have been shown", "", CHOSEN),
    },
    "nv-centres": {
        "link_model": Number("single-click", "one photon heralds", HUMPHREYS, ABSTRACT),
        "generation_rate": Number(
            (63.6, 63.6),
            "1/s: a photon is heard with 3.5·10⁻⁴, every 5.5 µs; 38 pairs/s at α = 0.3",
            HUMPHREYS,
            NETSQUID,
        ),
        "bright_state": Number((0.3, 0.1, 0.05), "α, by which rate and fidelity are traded", "", CHOSEN),
        "link_fidelity": Number(
            0.92,
            "at α = 0, 0.96·(1 + √V·exp(-σ²/2))/2 of visibility V = 0.9, phases of σ = 15°, 4 % double excitation",
            HUMPHREYS,
            NETSQUID,
        ),
        "coherence_time": Number(0.4, "s; a pair decays at 5/s, by two spins", HUMPHREYS, ABSTRACT),
        "gate_fidelity": Number(0.98, "of an electron-carbon gate", KALB, NETSQUID),
        "readout_fidelity": Number(0.9725, "mean of 0.95 and 0.995 for the two states", HUMPHREYS, NETSQUID),
        "swap_success": Number(1.0, "gates and readouts of spins do not fail", "", CHOSEN),
        "swap_rate": Number((100.0, 100.0), "swaps/s, faster than links", "", CHOSEN),
        "memory": Number((4, 8), "qubits", "", CHOSEN),
    },
    "neutral-atoms": {
        "generation_rate": Number((0.01, 0.01), "pairs/s over 33 km of fibre, of two ⁸⁷Rb atoms", VAN_LEENT, SECOND),
        "link_fidelity": Number(0.622, "over 33 km", VAN_LEENT, SECOND),
    },
    "ensembles": {
        "generation_rate": Number((1400.0, 1400.0), "heralds/s of two Pr³⁺ crystals, at most", LAGO_RIVERA, ABSTRACT),
        "parallel_modes": Number(62, "temporal modes", LAGO_RIVERA, ABSTRACT),
        "coherence_time": Number(25e-6, "s; entanglement is stored for a time set beforehand", LAGO_RIVERA, ABSTRACT),
    },
}


def fields(preset: str) -> dict[str, Any]:
    """The fields of a scenario that a preset sets; ScenarioError for another name."""
    if preset not in PRESETS:
        raise ScenarioError(f"unknown hardware preset {preset!r}; {nearest(str(preset), PRESETS)}")
    return {name: number.value for name, number in PRESETS[preset].items()}
