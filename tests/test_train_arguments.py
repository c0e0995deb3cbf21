"""Shorter ways to say which config a training has: its name alone, or the folder of a run."""

import pytest

from fairkd_jax.errors import UsageError
from fairkd_jax.program_flags import _ConfigParser, expand_arguments
from fairkd_jax.recipe.parse import parse_recipe
from fairkd_jax.runs.folder import config_diff, read_run_config, to_json_dict


def test_arguments_are_spelled_out(tmp_path):
    run = str(tmp_path)
    for given, expected in (
        (["configs/rkd_adv.py", "--baseline"], ["--config=configs/rkd_adv.py", "--baseline"]),
        (["rkd:mfd"], ["--config=rkd:mfd"]),
        (["--config", "rkd"], ["--config", "rkd"]),
        (["--resume", run, "--baseline"], [f"--config={run}", f"--workdir={run}", "--baseline"]),
        (["--baseline", f"--resume={run}"], ["--baseline", f"--config={run}", f"--workdir={run}"]),
        (["--resume"], ["--resume"]),
        ([], []),
    ):
        assert expand_arguments(given) == expected
    (tmp_path / "baseline").mkdir()
    (tmp_path / "baseline" / "config.json").touch()
    spelled = [f"--config={run}", f"--workdir={run}"]
    assert expand_arguments(["--resume", run]) == [*spelled, "--baseline"]
    assert expand_arguments(["--resume", run, "--nobaseline"]) == [*spelled, "--nobaseline"]
    with pytest.raises(UsageError, match="is not there"):
        expand_arguments(["--resume", str(tmp_path / "absent")])
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is no folder"):
        expand_arguments(["--resume", str(tmp_path / "file")])
    with pytest.raises(UsageError, match="leave --workdir out"):
        expand_arguments(["--resume", run, "--workdir=elsewhere"])


@pytest.mark.parametrize("name", ["rkd_adv", "rkd_adv/baseline"])
def test_the_folder_of_a_run_stands_for_its_config(kept, name):
    config = _ConfigParser(None).parse(str(kept / name))
    recipe = parse_recipe(config)
    saved = read_run_config(kept / name).config
    assert recipe.objectives.keys() == set(saved["objectives"])
    assert config_diff(saved, to_json_dict(recipe.config)) == []


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match="holds no run"):
        _ConfigParser(None).parse(str(tmp_path))
