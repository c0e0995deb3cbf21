"""Compares all ways of debiasing on the tinted digits over seeds: the table of docs/debiasing.md.

fairkd-debiasing-table [--seeds 0,1,2,3,4] [--distillers ckd,rkd] [--workdir DIR] [--json FILE]
"""

import json
from pkgutil import resolve_name
from typing import Any

from absl import flags

from fairkd_jax import cli, program_flags
from fairkd_jax.errors import UsageError
from fairkd_jax.files import make_jsonable, write_text
from fairkd_jax.user_paths import parse_path

DISTILLERS = {"ckd": "CKD", "rkd": "RKD"}
PLAIN = "plain"
TITLES = {
    PLAIN: "without debiasing",
    "adv": "adversary, lambda 1",
    "ratio": "adversary, ratio 1",
    "projection": "adversary, projection",
    "sampling": "balanced sampling",
    "weights": "balanced weights",
    "heads": "domain-independent heads",
    "mfd": "MFD",
    "critic": "bias critic, as it was run",
}
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2", "3", "4"], "Seeds of the runs and their teachers.")
_DISTILLERS = flags.DEFINE_list("distillers", list(DISTILLERS), "Distillation methods to train with.")
_WAYS = flags.DEFINE_list("ways", list(TITLES)[1:], "Debiasing methods to train with.")
_PRESET = flags.DEFINE_string("preset", "", "Preset of the configs; empty for digits.")
_WORKDIR = flags.DEFINE_string("workdir", "runs/table", "Folder of all runs; finished runs are kept.")
_EPOCHS = flags.DEFINE_integer(
    "epochs", 0, "Epochs of every training; 0 for the number in the config.", lower_bound=0
)
_JSON = flags.DEFINE_string("json", "", "File to write all results to, as JSON.")


def make_config(method: str, seed: int) -> Any:
    """Returns the config of a method, as DISTILLER-WAY, and a seed."""
    distiller, _, way = method.partition("-")
    from fairkd_jax.recipe.values import normalize

    words = ",".join(filter(None, (_PRESET.value, "" if way == PLAIN else way)))
    get_config: Any = resolve_name(f"fairkd_jax.configs.{distiller}:get_config")
    config = get_config(words)
    config.seed = seed
    if _EPOCHS.value:
        config.epochs = config.teacher.epochs = _EPOCHS.value
    return normalize(config)


def main() -> None:
    """Trains all methods with all seeds and prints a table for each distillation method."""
    output = program_flags.get_output_file(_JSON)
    seeds = [int(seed) if seed.isdigit() else -1 for seed in _SEEDS.value]
    if len(set(seeds)) < max(2, len(seeds)) or min(seeds) < 0:
        raise UsageError(
            f"--seeds={','.join(_SEEDS.value)} must be two or more different numbers, separated by commas"
        )
    for values, known, flag in ((_DISTILLERS.value, DISTILLERS, "distillers"), (_WAYS.value, TITLES, "ways")):
        if unknown := sorted(set(values) - set(known) | {PLAIN} & set(values)):
            names = ", ".join(name for name in known if name != PLAIN)
            raise UsageError(f"--{flag}: {', '.join(unknown)} unknown; choose from {names}")
    from fairkd_jax.benchmarks.debiasing import format_markdown, summarize_methods, train_all

    cli.use_compilation_cache()
    folder, found = parse_path(_WORKDIR.value), {}
    for distiller in _DISTILLERS.value:
        methods = [f"{distiller}-{way}" for way in (PLAIN, *_WAYS.value)]
        folders = train_all(make_config, methods, seeds, folder)
        found[distiller] = summarize_methods(folders, f"{distiller}-{PLAIN}")
    if output:
        write_text(output, json.dumps(make_jsonable(found), indent=2) + "\n")
    for distiller, rows in found.items():
        titles = {f"{distiller}-{way}": title for way, title in TITLES.items()}
        print(f"\n{DISTILLERS[distiller]}, seeds {', '.join(map(str, seeds))}\n")
        print(format_markdown(rows, titles))


def run() -> None:
    """Runs the program with the arguments of this process."""
    cli.run(main)
