"""Results for a paper: Markdown, LaTeX or CSV, with paired differences in numbers and in words; data for MARL-eval."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from dpem_env.envs.metric_labels import HEADLINE, QUANTITIES
from dpem_env.experiments.results import Measured, Results, records
from dpem_env.report.labels import Estimate
from dpem_env.support.errors import DpemError, nearest

Style = Literal["markdown", "latex", "csv", "marl-eval"]
USUAL = (*HEADLINE[:2], "fidelity", "latency")
COLUMNS = ("scenario", "label", "metric", "mean", "low", "high", "difference", "difference_low", "difference_high")
LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "−": "$-$"}
LATEX |= {sign: f"\\{sign}" for sign in "&%$#_{}"}
Record = dict[str, Any]


def paper_table(
    results: Results, metrics: Sequence[str] = (), reference: str | None = None, style: Style = "markdown"
) -> str:
    """A row per scenario and contestant: the metrics, mean ± half of the 95 % interval; below, differences in words.

    Differences are to the contestant of the label `reference` (default: that of the results), on the same episodes. CSV
    has a row per metric and numbers only. "marl-eval" is the JSON that MARL-eval and through it rliable take (Gorsane
    and others, NeurIPS 2022): scenarios are tasks, and every episode is a run of all contestants, the mean over
    training seeds. DpemError for a metric or a label that results do not have.
    """
    found = [each for each in records(results) if not each["policy"].startswith("bound:")]
    known = {name for each in found for name, value in each.items() if isinstance(value, Measured)}
    for name in metrics:
        if name not in known:
            raise DpemError(f"--metric is {name!r}; {nearest(name, known)}")
    labels = dict.fromkeys(each["label"] for each in found)
    reference = results.summary["reference"] if reference is None else reference
    if reference not in labels:
        raise DpemError(f"--reference is {reference!r}; {nearest(reference, labels)}")
    chosen = [name for name in metrics or USUAL if name in known]
    if style == "csv":
        return _csv(found, chosen, reference)
    if style == "marl-eval":
        return _marl_eval(found, metrics or [name for name in chosen if all(name in each for each in found)])
    return (_markdown if style == "markdown" else _latex)(found, chosen, reference)


def _difference(each: Record, metric: str, reference: str) -> Estimate | None:
    """To the reference on the same scenario; None for itself, and where no episode has both."""
    measured = each.get(metric)
    if not isinstance(measured, Measured) or each["label"] == reference or reference not in measured.others:
        return None
    return measured.minus(reference)


def _csv(found: Sequence[Record], metrics: Sequence[str], reference: str) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for each in found:
        for metric in (name for name in metrics if name in each):
            numbers: list[str] = []
            for estimate in (each[metric], _difference(each, metric, reference)):
                parts = (estimate.value, estimate.low, estimate.high) if estimate else (None,) * 3
                numbers += ["" if part is None else f"{part:.7g}" for part in parts]
            writer.writerow([each["scenario"], each["label"], metric, *numbers])
    return out.getvalue()


def _marl_eval(found: Sequence[Record], metrics: Sequence[str]) -> str:
    tasks: dict[str, dict[str, Any]] = {}
    for each in found:
        episodes = {}
        for name in metrics:
            values = each[name].values if name in each else None
            if values is None or not np.isfinite(values).all():
                where = f"{each['label']} on {each['scenario']}"
                raise DpemError(f"{where} has no {name} in some episode: name other metrics")
            episodes[name] = values.mean(axis=0)
        runs: dict[str, Any] = {}
        for run in range(each["episodes"]):
            scores = {name: [float(of[run])] for name, of in episodes.items()}
            runs[f"run_{run + 1}"] = {"step_1": {"step_count": 0, **scores}, "absolute_metrics": scores}
        tasks.setdefault(each["scenario"], {})[each["label"]] = runs
    return json.dumps({"dpem_env": tasks}, indent=1) + "\n"


def _cells(found: Sequence[Record], metrics: Sequence[str]) -> list[list[str]]:
    """Titles, then a row per scenario and contestant; the scenario only where there are several."""
    several = len({each["scenario"] for each in found}) > 1
    rows = [["scenario"] * several + ["policy", *(QUANTITIES[name].title for name in metrics)]]
    for each in found:
        values = [format(each[name]) if name in each else "-" for name in metrics]
        rows.append([each["scenario"]] * several + [each["label"], *values])
    return rows


def _words(found: Sequence[Record], metrics: Sequence[str], reference: str) -> list[str]:
    """What is played, and every difference as a sentence."""
    played = {each["scenario"]: f"{each['scenario']}, {each['episodes']} {each['split']} episodes" for each in found}
    several = len(played) > 1
    said = [f"{'; '.join(played.values())}, the same for all; mean ± 95 % CI ({found[0]['version']})."]
    for each in found:
        for metric in metrics:
            if (difference := _difference(each, metric, reference)) is not None:
                where = f" on {each['scenario']}" if several else ""
                said.append(f"{each['label']}{where}: {_sentence(difference, reference)}.")
    return said


def _sentence(difference: Estimate, reference: str) -> str:
    quantity, low, high = difference.quantity, difference.low, difference.high
    word = "higher" if difference.value > 0 else "lower"
    size = f"{abs(difference.value):.{quantity.decimals}f}{f' {quantity.unit}' if quantity.unit else ''}"
    if low is None or high is None or not np.isfinite(high - low):
        return f"{quantity.label} {size} {word} than {reference}"
    clear = "a clear difference" if low * high > 0 else "no clear difference"
    interval = f"[{low:+.{quantity.decimals}f}, {high:+.{quantity.decimals}f}]"
    return f"{quantity.label} {size} {word} than {reference}, 95 % CI {interval}: {clear}"


def _markdown(found: Sequence[Record], metrics: Sequence[str], reference: str) -> str:
    rows = _cells(found, metrics)
    first, *others = _words(found, metrics, reference)
    told = ["", first, *(["", *(f"- {each}" for each in others)] if others else [])]
    return markdown(rows, left=len(rows[0]) - len(metrics)) + "\n".join(told) + "\n"


def markdown(cells: Sequence[Sequence[str]], left: int) -> str:
    """Rows as a table of Markdown, titles first; all columns but the first `left` are aligned to the right."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in cells]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = ["-" * width if place < left else "-" * (width - 1) + ":" for place, width in enumerate(widths)]
    lines = [
        " | ".join(
            cell.ljust(width) if place < left else cell.rjust(width) for place, (cell, width) in enumerate(pairs)
        )
        for pairs in (list(zip(row, widths, strict=True)) for row in (rows[0], rule, *rows[1:]))
    ]
    return "".join(f"| {line} |\n" for line in lines)


def _latex(found: Sequence[Record], metrics: Sequence[str], reference: str) -> str:
    titles, *rows = ([_escaped(cell) for cell in row] for row in _cells(found, metrics))
    sides = "l" * (len(titles) - len(metrics)) + "r" * len(metrics)
    body = [" & ".join(row) + r" \\" for row in (titles, *rows)]
    words = [f"% {each}" for each in _words(found, metrics, reference)]
    return "\n".join([
        "% needs \\usepackage{booktabs}", *words, f"\\begin{{tabular}}{{{sides}}}", r"\toprule", body[0], r"\midrule",
        *body[1:], r"\bottomrule", r"\end{tabular}",
    ]) + "\n"  # fmt: skip


def _escaped(text: str) -> str:
    return re.sub("|".join(map(re.escape, LATEX)), lambda sign: LATEX[sign[0]], text)
