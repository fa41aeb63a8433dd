"""Checkpoints, learning curves and results: what was crafted is refused in one line, and harms nobody's memory."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hostile_input import inputs, mutated_bytes, one_of, peak, refused, report, spoil, tried
from numpy.lib import format as npy

from dpem_agents.deployment.plan import Plan
from dpem_agents.federation import federation
from dpem_agents.forecasters.checkpoint import load as load_forecaster
from dpem_agents.ppo.checkpoint import PARTS, load
from dpem_agents.ppo.forward import shapes
from dpem_agents.ppo.hyperparameters import PRESETS, Hyperparameters, changed
from dpem_agents.ppo.layout import Layout
from dpem_agents.ppo.policy import PpoPolicy
from dpem_agents.studies import attacks, curves
from dpem_env import scenarios
from dpem_env.demand.forecast import get_forecaster
from dpem_env.envs.session import EpisodeSeeds, Session
from dpem_env.scenarios import traces
from dpem_env.simulator import RULES_VERSION
from dpem_env.support.errors import PolicyError
from dpem_env.support.provenance import UNKNOWN

MB = 2**20
SHIPPED = Path(__file__).parents[2] / "agents" / "checkpoints"
MESH = scenarios.get("mesh20-v0", slots=4)
Arrays = dict[str, np.ndarray[Any, Any]]


class Kind(NamedTuple):
    """A kind of file: a good one, and what reads it and uses what was read."""

    about: dict[str, Any] | None
    arrays: Arrays
    use: Callable[[Path], object]


@pytest.fixture(scope="module")
def session() -> Session:
    session = Session(MESH, news=load(SHIPPED / "shipped" / "mesh20").news)
    session.begin(EpisodeSeeds(2000, 1))
    return session


@pytest.fixture(scope="module")
def kinds(session: Session) -> dict[str, Kind]:
    def unpacked(path: Path) -> tuple[dict[str, Any], Arrays]:
        with np.load(path) as stored:
            arrays = {name: stored[name] for name in stored.files}
        # Those of other rules are used for what they hold.
        return json.loads(str(arrays.pop("about"))) | {"rules": RULES_VERSION}, arrays

    def play(path: Path) -> None:
        policy = PpoPolicy(path)
        policy.reset(MESH, session.network, 0)
        policy.act(session.observer.table.read(session.observations()), session.masks())

    def forecast(path: Path) -> None:
        for name in ("gru", "ridge"):
            try:
                trial = Session(scenarios.get("abilene-trace-v0"), forecaster=get_forecaster(f"{name}:{path}"))
            except PolicyError:
                if name == "ridge":
                    raise
            else:
                return trial.begin(EpisodeSeeds(2000, 1), 2)
        return None

    def read_matrices(path: Path) -> None:
        traces.read_matrices.cache_clear()
        traces.read_matrices(path)

    policy, actor = unpacked(SHIPPED / "shipped" / "mesh20" / "policy.npz")
    chosen = policy["settings"]["hyperparameters"]
    layout = Layout.of(policy["interface"], changed(Hyperparameters(), **chosen))
    weights = shapes(chosen["encoder"], layout, chosen["hidden"], 1)
    training = {f"{part}.{name}": np.ones(shape, np.float32) for part in PARTS for name, shape in weights.items()}
    training["actions"] = np.zeros((3, policy["nodes"] * chosen["networks"]), np.int32)
    return {
        "policy": Kind(policy, actor, play),
        "training": Kind(policy | {"curve": []}, training, lambda path: load(path, training=True)),
        "gru": Kind(*unpacked(SHIPPED / "abilene-gru.npz"), forecast),
        "ridge": Kind(*unpacked(SHIPPED / "abilene-ridge.npz"), forecast),
        "trace": Kind(None, {"tm_mbps": np.ones((9, 3, 3), np.float32), "nodes": np.array([*"abc"])}, read_matrices),
    }


NEEDS_DATA = pytest.mark.skipif(not os.environ.get("DPEM_DATA"), reason="no real data: set DPEM_DATA")
# They play the Abilene trace.
FORECASTERS = [pytest.param(name, marks=[NEEDS_DATA, pytest.mark.slow]) for name in ("gru", "ridge")]
KINDS = pytest.mark.parametrize("name", ["policy", "training", *FORECASTERS, "trace"])


def write(path: Path, kind: Kind, about: Any = None, compressed: bool = True, **changed: Any) -> Path:
    text = {} if kind.about is None else {"about": np.array(json.dumps(kind.about if about is None else about))}
    (np.savez_compressed if compressed else np.savez)(path, **text, **kind.arrays | changed)
    return path


def add_zeros(path: Path, name: str, shape: tuple[int, ...], kind: str) -> None:
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(f"{name}.npy", "w", force_zip64=True) as stream,
    ):
        npy.write_array_header_1_0(stream, {"descr": kind, "fortran_order": False, "shape": shape})
        for _ in range(-(-int(np.prod(shape)) * np.dtype(kind).itemsize // (4 * MB))):
            stream.write(bytes(4 * MB))


@KINDS
@pytest.mark.parametrize("compressed", [False, True])
def test_a_good_file_is_used(kinds: dict[str, Kind], name: str, tmp_path: Path, compressed: bool) -> None:
    assert not refused(tried(kinds[name].use, write(tmp_path / "a.npz", kinds[name], compressed=compressed)))


@KINDS
def test_damaged_bytes_are_refused_in_one_line_or_make_no_difference(
    kinds: dict[str, Kind], name: str, tmp_path: Path
) -> None:
    path, accepted = tmp_path / "a.npz", []
    whole = [write(path, kinds[name], compressed=packed).read_bytes() for packed in (False, True)]
    for rng in inputs(100):
        path.write_bytes(mutated_bytes(rng, one_of(rng, whole)))
        accepted.append(not refused(tried(kinds[name].use, path)))
    report(f"{name} files with damaged bytes", accepted)


@KINDS
def test_single_flipped_bits_are_refused_in_one_line_or_make_no_difference(
    kinds: dict[str, Kind], name: str, tmp_path: Path
) -> None:
    whole, path, accepted = write(tmp_path / "a.npz", kinds[name]).read_bytes(), tmp_path / "b.npz", []
    for rng in inputs(400):
        flipped = bytearray(whole)
        flipped[int(rng.integers(len(flipped)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        accepted.append(not refused(tried(kinds[name].use, path)))
    report(f"{name} files with a flipped bit", accepted)


@KINDS
def test_files_cut_short_are_refused_in_one_line(kinds: dict[str, Kind], name: str, tmp_path: Path) -> None:
    whole, path = write(tmp_path / "a.npz", kinds[name]).read_bytes(), tmp_path / "b.npz"
    for length in np.linspace(0, len(whole) - 1, 50).astype(int):
        path.write_bytes(whole[:length])
        assert refused(tried(kinds[name].use, path))


@pytest.mark.parametrize("name", ["policy", "training", *FORECASTERS])
def test_another_description_is_refused_in_one_line_or_used(kinds: dict[str, Kind], name: str, tmp_path: Path) -> None:
    accepted = []
    for rng in inputs(120):
        about = json.loads(json.dumps(kinds[name].about))
        for _ in range(int(rng.integers(1, 3))):
            spoil(rng, about)
        try:
            path = write(tmp_path / "a.npz", kinds[name], about, compressed=False)
        except (ValueError, UnicodeEncodeError):  # what JSON cannot say
            continue
        accepted.append(not refused(tried(kinds[name].use, path)))
    report(f"{name} files described otherwise", accepted)


@KINDS
def test_other_arrays_are_refused_in_one_line_or_used(kinds: dict[str, Kind], name: str, tmp_path: Path) -> None:
    accepted = []
    for rng in inputs(100):
        arrays = dict(kinds[name].arrays)
        chosen = one_of(rng, list(arrays))
        match int(rng.integers(6)):
            case 0:
                del arrays[chosen]
            case 1:
                arrays[one_of(rng, ["x", "about.npy", "0.x", "1.peers", "weights.actor.x", "0", ".", "../x"])] = (
                    np.ones(3)
                )
            case 2 if arrays[chosen].dtype.kind in "fi":
                arrays[chosen] = arrays[chosen].astype(
                    one_of(rng, ["f2", "f4", "f8", "i1", "c16", ">f4", "?", "S3", "g"])
                )
            case 3:
                arrays[chosen] = np.asarray(arrays[chosen][one_of(rng, [0, slice(0), None, slice(1), ...])])
            case 4 if arrays[chosen].dtype.kind == "f":
                arrays[chosen] = arrays[chosen] * np.float32(one_of(rng, [np.nan, np.inf, -1.0, 1e30, 0.0]))
            case 5:
                arrays[chosen] = np.array([None, {}], dtype=object)
        path = write(tmp_path / "a.npz", kinds[name]._replace(arrays=arrays))
        with np.errstate(all="ignore"):
            accepted.append(not refused(tried(kinds[name].use, path)))
    report(f"{name} files with other arrays", accepted)


@KINDS
def test_half_a_gigabyte_of_zeros_beside_what_belongs_there_are_refused_unread(
    kinds: dict[str, Kind], name: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.npz", kinds[name])
    add_zeros(path, "zeros", (2**27,), "<f4")
    assert path.stat().st_size < 4 * MB
    outcome, most = peak(kinds[name].use, path)
    assert name == "trace" or "'zeros', which does not belong there" in str(outcome)
    assert most < 32 * MB


@pytest.mark.parametrize(
    ("name", "array", "changed", "shape"),
    [
        ("policy", "weights.actor.hidden.weight", {"hidden": 10_000}, (1, 10_000, 10_000)),
        ("training", "mean.actor.hidden.weight", {"hidden": 10_000}, (1, 10_000, 10_000)),
        ("training", "actions", {"networks": 10_000}, (1000, 200_000)),
        ("gru", "0.recurrent", {"hidden": 5_000}, (12, 5_000, 15_000)),
        ("ridge", "0.weights", {"horizon": 10_000}, (5_000, 9, 10_000)),
        ("ridge", "0.peers", {}, (10_000, 10_000)),
        ("trace", "tm_mbps", {}, (2_000_000, 12, 12)),
    ],
    ids=str,
)
def test_a_file_that_says_itself_how_large_it_is_unpacks_to_a_multiple_of_its_size_only(
    kinds: dict[str, Kind], name: str, array: str, changed: dict[str, int], shape: tuple[int, ...], tmp_path: Path
) -> None:
    kind = kinds[name]
    about = json.loads(json.dumps(kind.about))
    if "settings" in (about or {}):
        about["settings"]["hyperparameters"] |= changed
    elif about is not None:
        about |= changed
    arrays = {other: value for other, value in kind.arrays.items() if other != array}
    path = write(tmp_path / "a.npz", kind._replace(arrays=arrays), about)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        header = io.BytesIO()
        description = {"descr": kind.arrays[array].dtype.str, "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(header, description)
        archive.writestr(f"{array}.npy", header.getvalue() + bytes(MB))
    outcome, most = peak(kind.use, path)
    assert refused(outcome)
    assert most < 32 * MB


def test_a_description_nested_too_deeply_is_told_so(kinds: dict[str, Kind], tmp_path: Path) -> None:
    for name in ("policy", "gru"):
        np.savez_compressed(tmp_path / "a.npz", about=np.array("[" * 1_000_000), **kinds[name].arrays)
        assert "it is nested too deeply" in str(tried(kinds[name].use, tmp_path / "a.npz"))


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_corrupt_streams_of_every_method_are_refused(kinds: dict[str, Kind], method: int, tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.npz", kinds["gru"])
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(tmp_path / "a.npz", "w", method) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    content = (tmp_path / "a.npz").read_bytes()
    for rng in inputs(50):
        (tmp_path / "b.npz").write_bytes(mutated_bytes(rng, content))
        assert refused(tried(load_forecaster, tmp_path / "b.npz"))


def test_lists_of_numbers_are_no_checkpoint_of_a_folder_either(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none", "a\0b", "x" * 5000, "\udcff"):
        for read in (load, load_forecaster):
            assert refused(tried(read, place))


# Results


def point(at: int) -> dict[str, Any]:
    scores = {"reward": 1.0, "delivery_rate": 0.5, "contention": 0.1}
    return {"timesteps": at, "environment_steps": at, "seconds": 1.5} | scores


CURVE = {
    "scenario": "chain3-v0",
    "settings": {"seed": 0, "mode": "shared", "delay": None, "forecaster": None, "hyperparameters": {"hidden": 4}},
    "curve": [point(0), point(10), point(20)],
    "validation_episodes": 4,
}
SUMMARY = {
    "split": "validation",
    "scenarios": [
        {
            "name": "chain3-v0",
            "contestants": [{"label": "idle", "metrics": {name: {"mean": {"value": 0.5}} for name in curves.METRICS}}],
        }
    ],
}
TRIALS = {
    "format": "dpem-attacks-1",
    "trials": [{"attack": "none", "defence": "mean", "seed": 0, "delivery_rate": 1.0, "contention": 0.0, "reward": 2}],
}
PLAN = Plan(MESH, federation(epsilon=4.0, delta=1e-2, period=2), PRESETS["federated"], 3)
STAMP = {"stamp": UNKNOWN}
RESULTS: dict[str, tuple[str, dict[str, Any], Callable[[Path], object]]] = {
    "curve": ("learning_curve.json", CURVE, lambda path: curves.learning_curves({"a": str(path.parent)})),
    "summary": (
        "summary.json",
        SUMMARY,
        lambda path: curves.means_of(path, {"scenario": "chain3-v0"} | STAMP),
    ),
    "attacks": (
        "attacks.json",
        TRIALS | STAMP,
        lambda path: attacks._known(path, {"format": TRIALS["format"]} | STAMP),
    ),
    "plan": ("federation.json", {}, lambda path: Plan.load(path.parent)),
}
TOKENS = (b"[" * 5000, b"1e999", b"NaN", b"9" * 5000, b"{", b"null", b'"\\ud800"', b"true", b"-1", b"[]", b'""')


@pytest.mark.parametrize("name", RESULTS)
def test_a_mutated_result_is_refused_in_one_line_or_read(name: str, tmp_path: Path) -> None:
    file, good, read = RESULTS[name]
    path, accepted = tmp_path / file, []
    if name == "plan":
        PLAN.save(tmp_path, {"node": 2})
        good = json.loads(path.read_text())
    path.write_text(json.dumps(good))
    assert not refused(tried(read, path))
    for number, rng in enumerate(inputs(200)):
        data = json.loads(json.dumps(good))
        if number % 2:
            spoil(rng, data)
        try:
            content = json.dumps(data).encode()
        except ValueError:
            continue
        path.write_bytes(content if number % 2 else mutated_bytes(rng, content, TOKENS))
        with np.errstate(all="ignore"):
            accepted.append(not refused(tried(read, path)))
    report(f"{name} files", accepted)
