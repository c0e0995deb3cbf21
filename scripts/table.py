"""Every way of debiasing side by side on the tinted digits, over seeds: the table of docs/debiasing.md.

python scripts/table.py [--seeds 0,1,2,3,4] [--distillers ckd,rkd] [--workdir DIR] [--json FILE]
"""

from fairkd_jax import host_memory, interrupt  # before all that takes long to import

host_memory.tune(__name__)
interrupt.install(__name__)

import importlib
import json
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from fairkd_jax import cli
from fairkd_jax.benchmarks.debiasing import markdown, summary_of, train_all
from fairkd_jax.errors import UsageError
from fairkd_jax.files import write_text
from fairkd_jax.training import resolved
from fairkd_jax.training.writers import jsonable

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
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2", "3", "4"], "Of the runs and their teachers.")
_DISTILLERS = flags.DEFINE_list("distillers", list(DISTILLERS), "Ways to distil.")
_WAYS = flags.DEFINE_list("ways", list(TITLES)[1:], "Ways to debias.")
_PRESET = flags.DEFINE_string("preset", "", "Of the configs; digits where it is empty.")
_WORKDIR = flags.DEFINE_string("workdir", "runs/table", "The folder of all runs; what is there is kept.")
_EPOCHS = flags.DEFINE_integer("epochs", 0, "Of every training; 0: as the config says.", lower_bound=0)
_JSON = flags.DEFINE_string("json", "", "A file for everything that was measured.")


def config_of(distiller: str, way: str, seed: int) -> ConfigDict:
    name = distiller if way == PLAIN else f"{distiller}_{way}"
    config = importlib.import_module(f"configs.{name}").get_config(_PRESET.value)
    config.seed = seed
    if _EPOCHS.value:
        config.epochs = config.teacher.epochs = _EPOCHS.value
    return resolved(config)


def main() -> None:
    seeds = [int(seed) if seed.isdigit() else -1 for seed in _SEEDS.value]
    if len(set(seeds)) < max(2, len(seeds)) or min(seeds) < 0:
        raise UsageError(f"--seeds={','.join(_SEEDS.value)} must be two or more different numbers")
    for values, known, flag in ((_DISTILLERS.value, DISTILLERS, "distillers"), (_WAYS.value, TITLES, "ways")):
        if unknown := sorted(set(values) - set(known) | {PLAIN} & set(values)):
            names = ", ".join(name for name in known if name != PLAIN)
            raise UsageError(f"--{flag}: {', '.join(unknown)} unknown; use some of {names}")
    cli.use_compilation_cache()
    folder, found = Path(_WORKDIR.value), {}
    for distiller in _DISTILLERS.value:
        arms = {f"{distiller}-{way}": way for way in (PLAIN, *_WAYS.value)}
        folders = train_all(
            lambda arm, seed, d=distiller, ways=arms: config_of(d, ways[arm], seed), list(arms), seeds, folder
        )
        found[distiller] = summary_of(folders, f"{distiller}-{PLAIN}")
    if _JSON.value:
        write_text(Path(_JSON.value), json.dumps(jsonable(found), indent=2) + "\n")
    for distiller, rows in found.items():
        titles = {f"{distiller}-{way}": title for way, title in TITLES.items()}
        print(f"\n{DISTILLERS[distiller]}, seeds {', '.join(map(str, seeds))}\n\n{markdown(rows, titles)}")


if __name__ == "__main__":
    cli.run(main)
