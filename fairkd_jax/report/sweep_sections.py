"""The sections of a report on a sweep, from its findings."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fairkd_jax.report import sweep_plots
from fairkd_jax.report.blocks import Block, Section, Table, Text

Findings = Mapping[str, Any]
_CURVES = {
    "accuracy": ("Top-1 accuracy", ""),
    "disparity": (
        "Mean absolute disparity",
        "A dashed line is what chance alone would show of the methods in its colour.",
    ),
    "worst_recall": ("Worst class and group recall", ""),
    "advantage": ("Adversary's last advantage in nats", ""),
    "probe": ("Probe's advantage in nats (embedding)", ""),
    "classes_predicted": ("Number of classes that are predicted", ""),
}
_ADVANTAGE_NOTE = (
    "What the adversary of the training reads of the group beyond the label, at the end. At 0 it reads"
    " nothing; a fresh probe may still read more."
)
_NOT_MEASURED = "It is not in these evaluations; fairkd-eval on each run adds it."
_MISSING = {
    "probe": "It is not in these evaluations; fairkd-sweep with --probe adds it.",
    "advantage": "No run has logged it: a training without an adversary has none.",
}


def make_sweep_sections(findings: Findings) -> list[Section]:
    """Makes the sections of a report on a sweep, in their order.

    Args:
      findings: Result of `collect_sweep`.
    """
    sections = [_state_choice(findings), _show_trade_off(findings)]
    if findings["lambda_key"]:
        sections += [_show_lambda(findings), _show_space(findings)]
    return [*sections, _list_runs(findings), _tell_origin(findings)]


def _state_choice(findings: Findings) -> Section:
    methods, data = findings["methods"], findings["data"]
    runs = sum(len(method["runs"]) for method in methods)
    seeds = sorted({len(method["seeds"]) for method in methods})
    shown = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    blocks: list[Block] = [
        Text(
            f"{data['dataset']}: {runs} runs, which are {len(methods)} methods with {shown} seeds each, on"
            f" {findings['num_examples']:,} test images."
        ),
        Text(findings["reason"], "verdict"),
    ]
    if seeds[0] == 1:
        blocks.append(
            Text("A method with one seed has no interval: another seed may turn the order.", "missing")
        )
    for why, number in findings["left_out"].items():
        if number:
            blocks.append(Text(f"Left out, {why}: {number} runs.", "missing"))
    return Section("choice", "What can be said", blocks)


def _show_trade_off(findings: Findings) -> Section:
    figure = sweep_plots.draw_trade_off(findings["methods"], findings["constant_accuracy"])
    note = (
        "Up and to the left is better. A faded point is dominated: another method is as good or better in"
        " each. The large point is the choice, which saw validation images alone. Whoever answers some"
        " images at random with the most frequent class moves along the dashed line: below it, nothing is"
        " gained."
    )
    return Section("trade-off", "Trade-off", [figure, Text(note, "note")])


def _show_lambda(findings: Findings) -> Section:
    methods = [method for method in findings["methods"] if not math.isnan(method["lambda"])]
    blocks: list[Block] = [Text(f"Lambda is {findings['lambda_key']}.")]
    for name, (title, note) in _CURVES.items():
        if all(math.isnan(method["measures"][name]["mean"]) for method in methods):
            blocks.append(Text(f"{title}: n/a. {_MISSING.get(name, _NOT_MEASURED)}", "missing"))
            continue
        blocks.append(sweep_plots.draw_over_lambda(methods, name, title, note))
        if name == "advantage":
            blocks += _explain_advantage(methods)
    return Section("lambda", "Over lambda", blocks)


def _explain_advantage(methods: Sequence[Mapping[str, Any]]) -> list[Block]:
    """Explains the adversary's advantage, and names the methods that have none."""
    blocks: list[Block] = [Text(_ADVANTAGE_NOTE, "note")]
    lacking = {m["family"] for m in methods if math.isnan(m["measures"]["advantage"]["mean"])}
    if lacking:
        names = "; ".join(sorted(lacking))
        blocks.append(Text(f"n/a, because a run without an adversary logs none: {names}.", "missing"))
    return blocks


def _show_space(findings: Findings) -> Section:
    methods = [method for method in findings["methods"] if not math.isnan(method["lambda"])]
    return Section(
        "space",
        "Lambda, accuracy and disparity",
        [sweep_plots.draw_turnable(methods), sweep_plots.draw_heat_map(methods)],
    )


def _list_runs(findings: Findings) -> Section:
    rows = [
        [run, str(seed), method["family"], "" if math.isnan(method["lambda"]) else f"{method['lambda']:g}"]
        for method in findings["methods"]
        for run, seed in zip(method["runs"], method["seeds"], strict=True)
    ]
    runs = Table("Runs", ["run", "seed", "method", "lambda"], rows, is_folded=True)
    methods = sweep_plots.tabulate_methods(findings["methods"], "All methods")
    return Section("methods", "Methods and runs", [methods, *_compare_spreads(findings), runs])


def _compare_spreads(findings: Findings) -> list[Block]:
    """Compares the spread of accuracy over seeds with what the number of test images alone would make."""
    images, rows = findings["num_examples"], []
    for method in findings["methods"]:
        accuracy = method["measures"]["accuracy"]
        if not math.isnan(accuracy["deviation"]):
            sampling = math.sqrt(accuracy["mean"] * (1 - accuracy["mean"]) / images)
            text = "" if math.isnan(method["lambda"]) else f"{method['lambda']:g}"
            rows.append([method["family"], text, f"{accuracy['deviation']:.4f}", f"{sampling:.4f}"])
    if not rows:
        return []
    caption = "Accuracy: standard deviation over seeds, and standard error over test images"
    note = (
        "All seeds are measured on the same images. Where the error over images is larger, more test images"
        " would tell more than more seeds."
    )
    return [Table(caption, ["method", "lambda", "over seeds", "over images"], rows), Text(note, "note")]


def _tell_origin(findings: Findings) -> Section:
    commands = [
        ["1", f"fairkd-report {findings['folder']}"],
        ["2", f"fairkd-sweep --summary {findings['folder']}"],
    ]
    versions = [[name, number] for name, number in findings["versions"].items()]
    return Section(
        "origin",
        "How this was made",
        [
            Table("Commands", ["step", "command"], commands),
            Table("Versions", ["library", "version"], versions, is_folded=True),
        ],
    )
