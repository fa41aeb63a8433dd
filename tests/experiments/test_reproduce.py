"""Declared experiments: what is run, what is not run again, and what is said of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dpem_env.cli import app
from dpem_env.experiments import declared, reproduce
from dpem_env.support.errors import DpemError
from dpem_env.support.files import sole_writer

ROOT = Path(__file__).resolve().parents[2]

COPY = """
import sys
from pathlib import Path
source, target = sys.argv[1:]
Path(target).parent.mkdir(exist_ok=True)
Path(target).write_text(Path(source).read_text())
with open("ran.txt", "a") as ran:
    print(target, file=ran)
"""
TWO_STEPS = """
summary = "a file copied twice"

[[steps]]
name = "first"
run = "python copy.py in.txt made/first.txt"
inputs = ["in.txt"]
outputs = ["made/first.txt"]
core_minutes = 1

[[steps]]
name = "second"
run = "python copy.py made/first.txt made/second.txt"
inputs = ["made/*.txt"]
outputs = ["second/second.txt"]
core_minutes = 2
""".replace("made/first.txt made/second.txt", "made/first.txt second/second.txt")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an experiment of two steps, the second of which reads what the first makes."""
    (tmp_path / "copy.py").write_text(COPY)
    (tmp_path / "in.txt").write_text("1")
    (tmp_path / "two.toml").write_text(TWO_STEPS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(*words: str) -> int:
    reproduce, given, _ = app().parse_args(["reproduce", *words], exit_on_error=False, print_error=False)
    code: int = reproduce(*given.args, **given.kwargs)
    return code


def ran(project: Path) -> list[str]:
    """What was copied since this was last asked."""
    file = project / "ran.txt"
    names = [Path(line).stem for line in file.read_text().split()] if file.exists() else []
    file.unlink(missing_ok=True)
    return names


def test_what_is_up_to_date_is_not_run_again(project: Path) -> None:
    assert command("two.toml") == 0
    assert ran(project) == ["first", "second"]
    assert command("two.toml") == 0
    assert ran(project) == []


def test_a_changed_input_runs_what_reads_it_and_what_follows(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command("two.toml")
    ran(project)
    (project / "in.txt").write_text("2")
    capsys.readouterr()
    assert command("two.toml", "--dry-run") == 0
    said = capsys.readouterr().out
    assert "first (0.0 core minutes): in.txt changed" in said
    assert "second (0.0 core minutes): reads what first makes" in said
    assert ran(project) == []
    command("two.toml", "--workers", "2")
    assert ran(project) == ["first", "second"]
    assert (project / "second" / "second.txt").read_text() == "2"


def test_a_changed_declaration_runs_that_step_alone(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command("two.toml")
    ran(project)
    (project / "two.toml").write_text(TWO_STEPS.replace('inputs = ["made/*.txt"]', 'inputs = ["made/first.txt"]'))
    command("two.toml")
    assert ran(project) == ["second"]
    assert "second (0.0 core minutes): its declaration changed" in capsys.readouterr().out


@pytest.mark.parametrize(
    "changed",
    [
        "core_minutes = 7",
        "core_minutes = 1\nscratch = ['half']",
        "core_minutes = 1\noptions = { workers = 2 }",
        "core_minutes = 1  # about\ndata = []",
    ],
)
def test_what_results_do_not_follow_from_runs_nothing(project: Path, changed: str) -> None:
    command("two.toml")
    ran(project)
    (project / "two.toml").write_text(TWO_STEPS.replace("core_minutes = 1", changed))
    command("two.toml")
    assert ran(project) == []


@pytest.mark.parametrize(("change", "said"), [("unlink", "is missing"), ("write", "is not what it left")])
def test_outputs_that_are_gone_or_changed_are_made_again(
    project: Path, capsys: pytest.CaptureFixture[str], change: str, said: str
) -> None:
    command("two.toml")
    ran(project)
    output = project / "second" / "second.txt"
    output.unlink() if change == "unlink" else output.write_text("by hand")
    command("two.toml")
    assert ran(project) == ["second"]
    assert f"second/second.txt {said}" in capsys.readouterr().out


def test_of_code_among_the_inputs_what_it_says_counts(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "two.toml").write_text(TWO_STEPS.replace('inputs = ["in.txt"]', 'inputs = ["in.txt", "copy.py"]'))
    command("two.toml")
    ran(project)
    (project / "copy.py").write_text(COPY + "# a remark\n")
    command("two.toml")
    assert ran(project) == []
    (project / "copy.py").write_text(COPY + "print()\n")
    command("two.toml")
    assert ran(project) == ["first", "second"]
    assert "first (0.0 core minutes): copy.py changed" in capsys.readouterr().out
    (project / "copy.py").write_text("print(")
    with pytest.raises(DpemError, match=r"input 'copy.py' cannot be used"):
        command("two.toml")


def test_changed_rules_run_everything_again(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command("two.toml")
    ran(project)
    monkeypatch.setattr(reproduce, "stamp", lambda: "other rules")
    command("two.toml")
    assert ran(project) == ["first", "second"]
    assert "the code of dpem_env changed" in capsys.readouterr().out


def test_a_step_that_fails_says_why_and_ends_what_follows(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "in.txt").unlink()
    assert command("two.toml") == 1
    assert ran(project) == []
    assert "first: failed with exit code 1: FileNotFoundError" in capsys.readouterr().err
    (project / "in.txt").write_text("1")
    assert command("two.toml") == 0
    assert ran(project) == ["first", "second"]


def test_a_step_that_does_not_leave_what_it_says_fails(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "two.toml").write_text(TWO_STEPS.replace('outputs = ["second/', 'outputs = ["third/'))
    assert command("two.toml") == 1
    assert "second: it has left no third/second.txt" in capsys.readouterr().err


def test_what_is_there_can_be_adopted_with_a_reason(project: Path) -> None:
    for name in ("made/first.txt", "second/second.txt"):
        (project / name).parent.mkdir()
        (project / name).write_text("1")
    assert command("two.toml", "--adopt", "made by an earlier release; values compared") == 0
    assert command("two.toml") == 0
    assert ran(project) == []
    kept = json.loads((project / "two.lock.json").read_text())
    assert kept["steps"]["first"]["adopted"] == "made by an earlier release; values compared"


def test_nobody_adopts_or_runs_steps_while_another_process_does(project: Path) -> None:
    with sole_writer(project / "two.lock.json"):  # the record would be written over by what that process knows
        for arguments in ((), ("--adopt", "made elsewhere")):
            with pytest.raises(DpemError, match=r"another process is writing '\S*two.lock.json'"):
                command("two.toml", *arguments)
        assert command("two.toml", "--dry-run") == 0
    assert ran(project) == []


def test_what_a_step_took_is_still_known_when_it_is_adopted(project: Path) -> None:
    assert command("two.toml") == 0
    before = json.loads((project / "two.lock.json").read_text())["steps"]
    (project / "two.toml").write_text((project / "two.toml").read_text().replace("copy.py in.txt", "./copy.py in.txt"))
    assert command("two.toml", "--adopt", "the same program by another name") == 0
    after = json.loads((project / "two.lock.json").read_text())["steps"]
    assert {name: step["core_minutes"] for name, step in after.items()} == {
        name: step["core_minutes"] for name, step in before.items()
    }
    assert "adopted" in after["first"]


def test_a_step_alone(project: Path) -> None:
    command("two.toml", "--only", "first")
    assert ran(project) == ["first"]
    with pytest.raises(DpemError, match="has no step 'frist'; did you mean 'first'"):
        command("two.toml", "--only", "frist")


GOES_ON = """
import sys
from pathlib import Path
scratch = Path("scratch.txt")
done = scratch.read_text() if scratch.exists() else ""
scratch.write_text(done + Path("in.txt").read_text())
if not done and Path("stop").exists():
    sys.exit("interrupted")
Path("out.txt").write_text(scratch.read_text())
"""


def test_evaluation_alone_runs_what_trains_nothing_due_or_not(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(declared.Step, "evaluates", property(lambda step: "in.txt" not in step.run))
    command("two.toml")
    ran(project)
    (project / "in.txt").write_text("2")
    capsys.readouterr()
    assert command("two.toml", "--evaluate-only") == 0
    assert ran(project) == ["second"]
    assert "second: plays again" in capsys.readouterr().out


def test_training_and_tuning_are_no_evaluation() -> None:
    made = {step.name: step.evaluates for step in declared.load(str(ROOT / "agents/experiments/fronts.toml")).steps}
    assert not made["rules, tuned"]
    assert not made["ppo-routes seed 0"]
    assert made["evaluation"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM that is delivered")
def test_who_is_asked_to_end_ends_the_steps_too(project: Path) -> None:
    (project / "long.py").write_text("import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(60)")
    steps = '[[steps]]\nname = "long"\nrun = "python long.py"\noutputs = ["never"]\ncore_minutes = 1\n'
    (project / "long.toml").write_text('summary = "one long step"\n' + steps)
    running = subprocess.Popen([*reproduce.DPEM, "reproduce", "long.toml"], stderr=subprocess.PIPE, text=True)
    while not ((pid := project / "pid").exists() and pid.read_text()):
        assert running.poll() is None
        time.sleep(0.02)
    running.terminate()
    assert running.communicate(timeout=30)[1] == "interrupted; the same command again runs the rest\n"
    assert running.returncode == 130
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_an_interrupted_step_goes_on_unless_something_has_changed(project: Path) -> None:
    (project / "goes_on.py").write_text(GOES_ON)
    (project / "one.toml").write_text(
        'summary = "s"\n[[steps]]\nname = "a"\nrun = "python goes_on.py"\ninputs = ["in.txt"]\noutputs = ["out.txt"]\n'
        'scratch = ["scratch.txt"]\ncore_minutes = 0\n'
    )
    (project / "stop").touch()
    assert command("one.toml") == 1
    assert command("one.toml") == 0
    assert (project / "out.txt").read_text() == "11"
    (project / "out.txt").unlink()
    (project / "scratch.txt").unlink()
    assert command("one.toml") == 1
    (project / "in.txt").write_text("2")
    assert command("one.toml") == 1  # it began anew, and stops again
    assert command("one.toml") == 0
    assert (project / "out.txt").read_text() == "22"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[]", "it holds a list"),
        ('{"format": "else", "steps": {}, "begun": {}}', r"it.format: expected 'dpem-reproduced-1' \(given 'else'\)"),
        ('{"format": "dpem-reproduced-1", "steps": {"first": {}}, "begun": {}}', "it.steps.first.declared: is missing"),
        ('{"format": "dpem-reproduced-1", "steps": {}, "begun": {"first": 5}}', "it.begun.first: expected a section"),
    ],
)
def test_a_damaged_record_is_said(project: Path, text: str, told: str) -> None:
    (project / "two.lock.json").write_text(text)
    with pytest.raises(DpemError, match=f"record of steps 'two.lock.json' cannot be used: {told}"):
        command("two.toml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({'name = "second"': 'name = "first"'}, "two steps are called 'first'"),
        ({'run = "python copy.py in': 'rum = "python copy.py in'}, "steps.0.run"),
        ({'inputs = ["in.txt"]': 'inputs = ["@files"]'}, r"no list '@files'"),
        ({"core_minutes = 1": "core_minutes = -1"}, "steps.0.core_minutes"),
        ({"[[steps]]": "[steps"}, "cannot be used"),
    ],
)
def test_mistakes_in_a_declaration(project: Path, change: dict[str, str], message: str) -> None:
    text = TWO_STEPS
    for old, new in change.items():
        text = text.replace(old, new)
    (project / "two.toml").write_text(text)
    with pytest.raises(DpemError, match=message):
        declared.load("two.toml")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_declaration_may_begin_with_a_byte_order_mark(project: Path, encoding: str) -> None:
    (project / "two.toml").write_text(TWO_STEPS, encoding=encoding)
    assert len(declared.load("two.toml").steps) == 2


def test_lists_and_combinations(project: Path) -> None:
    (project / "many.toml").write_text(
        'summary = "s"\n[lists]\nrules = ["a", "b"]\n[[steps]]\nname = "seed {seed}"\neach = { seed = [0, 1] }\n'
        'run = "benchmark quick"\noptions = { policy = ["@rules", "c"], delay = [0, 0.5], seeds = 3, score = true, '
        'learn.discount = 0.9, out = "runs/{seed}" }\noutputs = ["runs/{seed}/summary.json"]\ncore_minutes = 1\n'
    )
    steps = declared.load("many.toml").steps
    assert [step.name for step in steps] == ["seed 0", "seed 1"]
    assert " ".join(steps[1].command) == (
        "benchmark quick --policy a --policy b --policy c --delay 0 --delay 0.5 --seeds 3 --score --learn.discount 0.9 "
        "--out runs/1"
    )
    assert steps[1].outputs == ("runs/1/summary.json",)


def test_steps_without_their_data_are_left_out(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "two.toml").write_text(TWO_STEPS.replace("core_minutes = 2", 'core_minutes = 2\ndata = ["abilene"]'))
    assert command("two.toml", "--data", str(project)) == 0
    assert ran(project) == ["first"]
    assert "left out for want of data" in capsys.readouterr().out


DECLARED = sorted((*ROOT.glob("baselines/experiments/*.toml"), *ROOT.glob("agents/experiments/*.toml")))


@pytest.mark.parametrize("path", DECLARED, ids=lambda path: path.stem)
def test_the_commands_of_the_projects_experiments_exist(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    experiment = declared.load(str(path))
    parse = app().parse_args
    for step in experiment.steps:
        if step.command[0] == "python":
            assert Path(step.command[1]).is_file()
        elif "/" not in step.command[0]:
            parse(step.command, exit_on_error=False, print_error=False)


def test_inputs_that_steps_make_are_made_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for path in DECLARED:
        steps = declared.load(str(path)).steps
        for place, step in enumerate(steps):
            assert not [later.name for later in steps[place + 1 :] if reproduce._reads(step, later)], step.name
