"""The phases of a slot compile for a GPU, too, as they stand: functions of numbers and arrays, without allocations."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from numba import from_dtype, typeof, types

from dpem_env import scenarios
from dpem_env.simulator import kernel, telemetry
from dpem_env.simulator.simulator import rules_of
from dpem_env.simulator.state import State, Workspace, World, allocate

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: CONTRIBUTING.md says how to run this")

HOPPER = (9, 0)  # sm_90
AXES = dict.fromkeys(("1", "2", "5", "N", "D", "k", "H", "H1", "K", "L", "C", "R", "S", "T", "G", "NK", "NKH"), 1)


def of_one_environment(struct: Any) -> types.Type:
    """The struct as phases see it."""
    arrays = allocate(struct, 1, AXES)
    return types.NamedTuple([types.Array(from_dtype(array.dtype), array.ndim - 1, "C") for array in arrays], struct)


RULES = typeof(rules_of(scenarios.get("mesh100-v0")))
WORLD, STATE, WORK = (of_one_environment(struct) for struct in (World, State, Workspace))
PER_NODE, PER_ROUTE = (types.Array(types.int64, axes, "C") for axes in (1, 2))
PHASES: dict[Any, tuple[types.Type, ...]] = {
    kernel.begin: (RULES, WORLD, STATE, WORK),
    kernel.arrivals: (RULES, WORLD, STATE),
    kernel.decide: (RULES, WORLD, STATE, WORK, PER_NODE, PER_NODE, PER_NODE, PER_NODE, PER_ROUTE),
    kernel.admit: (RULES, WORLD, STATE, WORK, types.int64, PER_NODE, PER_NODE),
    kernel.generate: (RULES, WORLD, STATE, WORK),
    kernel.swap: (RULES, WORLD, STATE, WORK),
    kernel.deliver: (RULES, WORLD, STATE, WORK),
    kernel.age: (RULES, WORLD, STATE),
    telemetry.pass_telemetry: (RULES, WORLD, STATE, WORK),
}


@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.__name__)
def test_a_phase_compiles_for_a_gpu(phase: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from numba import cuda
    from numba.cuda import dispatcher

    # numba-cuda asks the GPU at hand for what it compiles called functions: here there need not be one.
    monkeypatch.setattr(dispatcher, "get_current_device", lambda: SimpleNamespace(compute_capability=HOPPER))
    code, _ = cuda.compile_ptx(phase.py_func, PHASES[phase], device=True, cc=HOPPER)
    assert ".target sm_90" in code
    assert phase.__name__ in code
