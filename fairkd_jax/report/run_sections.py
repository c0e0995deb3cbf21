"""The sections of a report on one run, from its findings."""

from collections.abc import Mapping
from typing import Any

from fairkd_jax.report import plots
from fairkd_jax.report.blocks import Block, Section, Table, Text
from fairkd_jax.report.class_sections import name_models, show_classes, show_predictions
from fairkd_jax.report.comparison_text import make_inflation_sentence, make_verdict_sentences
from fairkd_jax.report.curves import CURVES
from fairkd_jax.report.data_sheet import show_data_sheet
from fairkd_jax.report.meanings import MEANINGS
from fairkd_jax.report.shown_classes import choose_classes, describe_choice, keep_classes
from fairkd_jax.report.tables import (
    ROWS,
    find_measure,
    format_measure,
    format_method,
    format_number,
    read_warnings,
)

Findings = Mapping[str, Any]
_SMALL_CELL = 10  # images
LIMITATIONS = (
    "One trained model for each setting: other seeds give other numbers. fairkd-compare takes several seeds.",
    "The groups are those of the annotation, and an image whose group is unknown counts for no gap.",
    "A gap of recall says how often each group is recognised, and nothing about how harmful a mistake is.",
    "Disparity can fall because all groups are recognised less: read it beside accuracy and worst recall.",
    "The numbers hold for images like those of the test split, and for no other use of the model.",
)


_INFLATION_NOTE = (
    "Inflation: by how many percent the student's disparity exceeds the teacher's. Chance adds to both,"
    " which moves the percentage toward 0 where it is not corrected."
)


def make_run_sections(findings: Findings) -> list[Section]:
    """Makes the sections of a report on one run, in their order.

    Args:
      findings: Result of `collect_findings`.
    """
    shown = choose_classes(findings)
    note = describe_choice(
        len(shown), len(findings["data"]["class_names"]), "the images support their gaps most, in any model"
    )
    some = keep_classes(findings, shown)
    makers = (
        lambda found: _describe_data(found, some, note),
        _state_verdict,
        _list_measures,
        lambda found: show_classes(some, note),
        show_predictions,
        _show_leakage,
        _show_curves,
        _list_limitations,
        _tell_origin,
    )
    return [make(findings) for make in makers]


def _describe_data(findings: Findings, some: Findings, choice: str) -> Section:
    """Shows the images by class, group and split; small cells are marked, and not all classes are shown."""
    data, blocks = findings["data"], list[Block]()
    classes, groups, counts = data["class_names"], data["group_names"], some["data"].get("counts")
    sizes = ", ".join(f"{number:,} in {split}" for split, number in data["num_examples"].items())
    blocks.append(Text(f"{data['dataset']}: {len(classes)} classes, {len(groups)} groups, {sizes} images."))
    if counts is None:
        command = f"fairkd-eval {findings['folder']}"
        text = f"The images of train and val are not in this evaluation; run `{command}`."
        blocks.append(Text(text, "missing"))
        counts = {"test": some["models"]["student"]["counts_by_group"]}
    head = ["class", *(f"{split}: {group}" for split in counts for group in groups)]
    rows = []
    for c, name in enumerate(some["data"]["class_names"]):
        cells = [counts[split][g][c] for split in counts for g in range(len(groups))]
        rows.append([name, *(f"{n}{' (small)' if n < _SMALL_CELL else ''}" for n in cells)])
    blocks.append(Table("Images by class, group and split", head, rows))
    note = (
        f"Small: fewer than {_SMALL_CELL} images. A gap from such a cell is mostly chance; its interval says"
        " how much."
    )
    notes = [Text(text, "note") for text in (choice, note) if text]
    return Section("data", "Data", [*blocks, *notes, *show_data_sheet(findings["data_sheet"])])


def _state_verdict(findings: Findings) -> Section:
    """States what was compared, and only what the intervals allow."""
    models, folder = findings["models"], findings["folder"]
    student = models["student"]
    floor = format_number(student["floor"], 3)
    images, known = student["num_examples"], student["num_known_group"]
    facts = (
        f"{images:,} test images, {known:,} of a known group; one seed of each model. The student is its"
        f" {findings['checkpoint']} checkpoint, of step {student['step']}. An unbiased model would show a"
        f" mean absolute disparity of {floor} here by chance."
    )
    blocks: list[Block] = [Text(facts)]
    if "comparison" in findings:
        if others := findings["other_differences"]:
            text = f"The two students do not differ in debiasing alone, but in {', '.join(others)} too."
            blocks.append(Text(f"{text} What follows mixes both; train both alike.", "missing"))
        (entry,) = findings["comparison"]["comparisons"]
        text = "The student against the student without debiasing: "
        blocks.append(Text(text + " ".join(make_verdict_sentences(entry, 1)), "verdict"))
    else:
        blocks.append(
            Text(
                "There is no student without debiasing to compare with; the same training command with"
                f" --baseline adds it below {folder}.",
                "missing",
            )
        )
    titles = name_models(findings)
    for name, title in titles.items():
        if name in findings["inflation"]:
            blocks.append(Text(make_inflation_sentence(findings["inflation"][name], title)))
    if findings["inflation"]:
        blocks.append(Text(_INFLATION_NOTE, "note"))
    for name, title in titles.items():
        blocks += [Text(f"Warning, {title}: {text}", "missing") for text in read_warnings(models[name])]
    return Section("verdict", "What can be said", blocks)


def _list_measures(findings: Findings) -> Section:
    """Lists the study's table: each measure, teacher and students side by side."""
    titles, models = name_models(findings), findings["models"]
    rows = [
        ["method", *(format_method(models[name]) for name in titles)],
        ["model", *(models[name]["architecture"] for name in titles)],
        ["parameters", *(f"{models[name]['parameters']:,}" for name in titles)],
    ]
    rows += [
        [row.strip(), *(format_measure(find_measure(models[name], key)) for name in titles)]
        for row, key in ROWS.items()
    ]
    table = Table("Measures on the test images", ["measure", *titles.values()], rows)
    notes = [Text(note, "note") for note in _MEASURE_NOTES]
    means = Table(
        "What each measure means",
        ["measure", "means", "does not mean, or misleads when"],
        [[row.strip(), *MEANINGS[key]] for row, key in ROWS.items()],
        is_folded=True,
        is_prose=True,
    )
    return Section("measures", "Measures", [table, *notes, means])


_MEASURE_NOTES = (
    "Mean absolute disparity: the mean over classes of the gap of recall between the groups. It is above 0 by"
    " chance alone, and 0 for a model that gives every image the same answer. Corrected for chance: what is"
    " left when chance is taken out, with its interval.",
    "Worst class and group recall: of the cell that is recognised least. It moves a lot in small cells.",
    "Gaps of rates (SPD, EOD, DEO, AAOD) are those that other papers print. None is corrected for chance.",
    "Calibration error: how far the highest probability is from the share of right answers. ROC area: how"
    " well each class is ranked before the others, whatever the threshold.",
)


def _show_leakage(findings: Findings) -> Section:
    """Shows what probes read of the group."""
    titles, models = name_models(findings), findings["models"]
    probed = [name for name in titles if "probe" in models[name]]
    if not probed:
        text = f"No probe was fitted; run `fairkd-eval {findings['folder']} --probe`."
        return Section("leakage", "Leakage", [Text(text, "missing")])
    rows = []
    for source in ("embedding", "logits"):
        for kind in ("linear", "mlp"):
            cells = [models[name]["probe"][source][kind] for name in probed]
            shown = [
                f"{format_number(cell['advantage'], 3)} ({format_number(cell['accuracy'], 2)})"
                for cell in cells
            ]
            rows.append([f"{source}, {kind}", *shown])
    table = Table(
        "Group readable beyond the label: advantage in nats, and balanced accuracy",
        ["probe", *(titles[name] for name in probed)],
        rows,
    )
    text = (
        "A fresh probe reads the group from the frozen model, after training. 0 means that it reads nothing"
        " beyond what the label says. A stronger probe may read more."
    )
    return Section("leakage", "Leakage", [table, Text(text, "note")])


def _show_curves(findings: Findings) -> Section:
    titles, blocks = name_models(findings), list[Block]()
    for key, title in CURVES.items():
        curves = {
            name: findings["curves"][name][key] for name in titles if key in findings["curves"].get(name, {})
        }
        if curves:
            blocks.append(
                plots.draw_curves(title, f"{title} over the steps of the training.", curves, titles)
            )
    if not blocks:
        blocks = [Text("There is no metrics.jsonl beside these runs.", "missing")]
    return Section("curves", "Training", blocks)


def _list_limitations(findings: Findings) -> Section:
    return Section("limitations", "Limitations", [Text(text) for text in LIMITATIONS])


def _tell_origin(findings: Findings) -> Section:
    """Tells how the numbers were made: commands, config and versions."""
    rows = [[key, str(value)] for key, value in findings["settings"].items()]
    versions = [[name, number] for name, number in findings["versions"].items()]
    commands = [[str(number), text] for number, text in enumerate(findings["commands"], 1)]
    return Section(
        "origin",
        "How this was made",
        [
            Table("Commands", ["step", "command"], commands),
            Table("Settings of the run", ["key", "value"], rows, is_folded=True),
            Table("Versions", ["library", "version"], versions, is_folded=True),
        ],
    )
