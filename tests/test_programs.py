"""The two programs as users start them: what they print, and how they fail."""

import functools
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from fairkd_jax import host_memory
from fairkd_jax.run_log import is_worth_reading
from tests.programs import ROOT, command, run_program

CONFIG = f"--config={ROOT / 'configs' / 'student.py'}"
SMALL = [
    "--config.teacher.architecture=efficientnet_tiny",
    "--config.data.size=16",
    "--config.data.image_size=16",
    "--config.epochs=1",
    "--config.teacher.epochs=1",
    "--config.batch_size=256",
    "--config.log_every_steps=1",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where programs are started; they find the repository's configs all the same."""
    return tmp_path_factory.mktemp("programs")


@pytest.fixture
def start(forks, folder, data_directory):
    """Starts a program in that folder, with prepared digits at hand."""
    return functools.partial(forks.run, cwd=folder, FAIRKD_DATA=data_directory)


@pytest.fixture(scope="session")
def trained(make_once, data_directory):
    """What the first of the README's commands prints, with fewer epochs; and the folder that it ran in."""

    def make(folder):
        config = f"--config={ROOT / 'configs' / 'rkd_adv.py'}"
        arguments = ("train.py", config, *SMALL, "--baseline")
        ended = run_program(*arguments, cwd=folder, FAIRKD_DATA=data_directory)
        (folder / "ended.json").write_text(json.dumps([ended.returncode, ended.stdout, ended.stderr]))

    folder = make_once("programs", make)
    code, printed, said = json.loads((folder / "ended.json").read_text())
    return SimpleNamespace(returncode=code, stdout=printed, stderr=said, folder=folder)


def test_ctrl_c_while_it_starts_is_one_line(tmp_path):
    with subprocess.Popen(
        command("train.py", CONFIG, *SMALL), cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as process:
        maps = Path(f"/proc/{process.pid}/maps")
        deadline = time.monotonic() + 60
        while "numpy" not in maps.read_text() and time.monotonic() < deadline:
            time.sleep(0.02)  # from now on it is importing for a second or more
        process.send_signal(signal.SIGINT)
        _, printed = process.communicate(timeout=60)
    assert process.returncode == 130
    assert printed.splitlines() == [
        "train.py: interrupted; start the same command again to continue from the saved state"
    ]


HELD = """
import os, signal, sys
from fairkd_jax import interrupt

interrupt.hold()
os.kill(os.getpid(), signal.SIGINT)
code = "from fairkd_jax import interrupt; print('began', flush=True); interrupt.install(); print('went on')"
os.execv(sys.executable, [sys.executable, "-c", code])
"""


def test_ctrl_c_while_a_program_starts_itself_again_is_kept():
    ended = run_program("-c", HELD)
    assert (ended.returncode, ended.stdout) == (130, "began\n")
    (line,) = ended.stderr.splitlines()
    assert "interrupted; start the same command again" in line


def test_a_command_imports_nothing_before_ctrl_c_is_handled():
    code = "import sys; old = set(sys.modules); import fairkd_jax.commands; print(*set(sys.modules) - old)"
    assert set(run_program("-c", code).stdout.split()) <= {"fairkd_jax", "fairkd_jax.commands"}


def test_help_is_no_error(forks):
    shown = forks.run("train.py", "--help")
    assert shown.returncode == 0
    for words in ("--config:", "NAME[:WORD,...] or", "--workdir:", "--list:", "--coordinator:"):
        assert words.replace("--list", "--[no]list") in shown.stdout
    assert "fairkd-train --list prints the configs" in shown.stdout
    assert "--list" not in forks.run("eval.py", "--help").stdout


def test_the_list_is_printed_without_a_config(start):
    shown = start("train.py", "--list")
    assert (shown.returncode, shown.stderr) == (0, "")
    for words in ("  rkd_adv ", "  utkface ", "  mfd ", "efficientnet_b3", "  adversary.weight = 1.0"):
        assert words in shown.stdout


def test_an_unknown_extra_is_named_before_anything_is_installed(folder):
    refused = run_program(
        "scripts/with_env.py", "--venv", "env", "--extra", "gpus", "python", "-V", cwd=folder
    )
    assert refused.returncode == 2
    assert "there is no extra 'gpus'; use one of gpu, tpu" in refused.stderr
    assert not (folder / "env").exists()


@pytest.mark.slow
def test_train_prints_the_comparison(trained):
    assert trained.returncode == 0, trained.stderr
    for words in ("teacher", "student", "baseline", "top-1 accuracy", "mean absolute disparity", "inflation"):
        assert words in trained.stdout
    assert "CE + RKD-D + RKD-A + adversary(1)" in trained.stdout
    assert "CE + RKD-D + RKD-A + adversary(0)" in trained.stdout
    lines = [line for line in trained.stderr.splitlines() if line.startswith("student: step 4/4")]
    assert len(lines) == 1
    for words in ("images/s", "rkd_angle/loss", "adversary/advantage", "left"):
        assert words in lines[0]
    workdir = trained.folder / "runs" / "rkd_adv"
    evaluation = json.loads((workdir / "eval" / "test.json").read_text())
    assert {"teacher", "student", "baseline", "inflation"} <= evaluation.keys()
    assert (workdir / "teacher" / "checkpoints" / "best").is_dir()


@pytest.mark.slow
def test_the_same_command_again_says_that_it_is_done(trained, start):
    arguments = (f"--config={ROOT / 'configs' / 'rkd_adv.py'}", *SMALL, "--baseline")
    again = start("train.py", *arguments, cwd=trained.folder)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("this run is complete") == 3
    assert again.stdout.endswith(trained.stdout[trained.stdout.index("\n\n") :])


@pytest.mark.slow
def test_eval_prints_the_tables(trained, start):
    arguments = ("runs/rkd_adv", "--split=val", "--baseline=runs/rkd_adv/baseline")
    result = start("eval.py", *arguments, cwd=trained.folder)
    assert result.returncode == 0, result.stderr
    assert "top-1 accuracy" in result.stdout
    assert "n blue" in result.stdout
    assert (trained.folder / "runs" / "rkd_adv" / "predictions" / "val.npz").exists()


@pytest.mark.parametrize(
    ("program", "arguments", "message"),
    [
        ("train.py", [], "--config"),
        ("train.py", ["--config=configs/none.py"], "none.py"),
        ("train.py", [f"{CONFIG}:faces"], "train.py: unknown word 'faces' behind the colon; the presets are"),
        ("train.py", ["--config", "rkd:mfd,mfd"], "train.py: the word mfd is there twice"),
        ("train.py", ["--config=configs/rkd_mfd.py:utkface"], "rkd_mfd.py is now --config rkd:mfd,utkface\n"),
        ("train.py", ["--config=rkd_adv:ratio", "--config.epochs=1"], "write --config rkd:ratio"),
        ("train.py", ["--config", "rkd_adv", "--config.epochz=1"], 'Did you mean "epochs"'),
        ("train.py", ["--config", "rkd_adv:sampling,utkface"], "susanqq.github.io/UTKFace"),
        ("scripts/inspect_data.py", ["--config", "none"], "there is no config none; the configs of the"),
        ("train.py", [CONFIG, "--config.optimizer.learnin_rate=1.0"], 'Did you mean "learning_rate"'),
        ("train.py", [CONFIG, "--config.epochs=many"], "epochs"),
        ("train.py", [CONFIG, "--nonsense=1"], "nonsense"),
        ("train.py", [CONFIG, "again"], "unexpected argument 'again'"),
        (
            "train.py",
            [CONFIG, "--config.objectives=cross_entropy,rdk"],
            "unknown objective 'rdk'; use one of",
        ),
        ("train.py", [CONFIG, "--baseline"], "has none"),
        ("train.py", [f"{CONFIG}:utkface"], "susanqq.github.io/UTKFace"),
        ("train.py", [f"{CONFIG}:utkface", "--config.data.source=nowhere"], "nowhere"),
        ("train.py", [f"{CONFIG}:manifest"], "path,label,group,split"),
        ("eval.py", [], "--workdir RUN"),
        ("eval.py", ["--workdir=nowhere"], "nowhere holds no run"),
        ("eval.py", ["--workdir=nowhere", "--split=all"], "split"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(forks, folder, program, arguments, message):
    result = forks.run(program, *arguments, cwd=folder)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("program", "arguments", "message"),
    [
        ("eval.py", ["--workdir=nowhere"], "nowhere holds no run"),
        ("scripts/power_analysis.py", [CONFIG, "--accuracy=0.9", "--discordant=0.5"], "at most 0.2"),
    ],
)
def test_a_start_on_its_own_finds_what_it_needs_and_says_no_more(
    folder, data_directory, program, arguments, message
):
    """The forks have imported all, and know the folder of the repository."""
    result = run_program(program, *arguments, cwd=folder, PYTHONPATH=None, FAIRKD_DATA=data_directory)
    assert result.returncode == 2
    (line,) = result.stderr.strip().splitlines()
    assert message in line


def test_a_file_of_a_user_finds_the_projects_configs(forks, tmp_path):
    text = (
        "def get_config(words=''):\n    config = base.get_config(words)\n    config.objectives = ('new',)\n"
    )
    for place in ("configs", "fairkd_jax.configs"):
        (tmp_path / "own.py").write_text(f"from {place} import base\n\n\n{text}    return config\n")
        for program, *options in (["train.py"], ["scripts/sweep.py", "--grid=seed=0", "--dry_run"]):
            result = forks.run(program, "--config=own.py:utkface", *options, cwd=tmp_path)
            assert result.returncode == 2
            assert "unknown objective 'new'" in result.stderr


def test_a_data_set_can_be_looked_at(start, folder):
    config = f"--config={ROOT / 'configs' / 'student.py'}"
    small = ["--config.data.size=16", "--config.data.image_size=16"]
    shown = start("scripts/inspect_data.py", config, *small, "--output=look", "--images=2")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines() == [
        f"look/digits-{name}.png" for name in ("train", "val", "test", "counts")
    ]
    with Image.open(folder / "look" / "digits-train.png") as sheet:
        pixels = np.asarray(sheet)
    # Ten rows of two blocks of two images, none of which is blank.
    assert pixels.shape[0] > 10 * 16
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100
    with Image.open(folder / "look" / "digits-counts.png") as chart:
        assert chart.width > chart.height


def test_what_a_data_set_can_show_is_said_before_training(forks, data_directory):
    config = f"--config={ROOT / 'configs' / 'student.py'}"
    small = [
        "--config.data.size=16",
        "--config.data.image_size=16",
        f"--config.data.directory={data_directory}",
    ]
    said = forks.run("scripts/power_analysis.py", config, *small, "--accuracy=0.9", "--discordant=0.1")
    assert said.returncode == 0, said.stderr
    first, *rest = said.stdout.splitlines()
    assert first.startswith("digits, test: ")
    assert "of 2 known groups in 10 classes, at 0.9 accuracy" in first
    assert len(rest) == 3
    wrong = forks.run("scripts/power_analysis.py", config, *small, "--accuracy=0.9", "--discordant=0.5")
    assert wrong.returncode == 2
    assert "at most 0.2" in wrong.stderr


def test_what_the_statistics_promise_is_simulated(start, forks, folder):
    shown = start("scripts/simulate_statistics.py", "--trials=2", "--draws=20", "--json=simulated.json")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("3,465 images in 16 classes, at 0.65 accuracy; 2 trials a line")
    assert shown.stderr.splitlines()[0] == "one model: normal gaps, 0 in the mean"
    figures = json.loads((folder / "simulated.json").read_text())
    assert len(figures["one model"]) == 3 * 6 + 1
    assert len(figures["two models"]) == 7
    small = figures["small cells"]
    assert {(row["scenario"], row["classes"], row["images"]) for row in small} >= {
        ("recalls 0.98 and 0.93", 2, "8"),
        ("recall 0.65, gaps of 0.4 and -0.4", 8, "5"),
    }
    assert len(shown.stdout.splitlines()) == 1 + 3 * 3 + 19 + 7 + len(small)
    assert shown.stderr.splitlines()[-1].startswith("small cells: recalls 0.98 and 0.93, 8 classes of 5-40 ")
    config = f"--config={ROOT / 'configs' / 'student.py'}"
    size = ["--config.data.size=16", "--config.data.image_size=16"]
    shown = start(
        "scripts/simulate_statistics.py",
        config,
        *size,
        "--trials=1",
        "--draws=9",
        "--accuracy=0.9",
        "--table=two models",
    )
    assert shown.returncode == 0, shown.stderr
    assert len(shown.stdout.splitlines()) == 1 + 3 + 7
    assert "images in 10 classes, at 0.9 accuracy" in shown.stdout
    shown = forks.run("scripts/simulate_statistics.py", "--trials=1", "--draws=9", "--table=small cells")
    assert shown.stdout.startswith("1 trials a line, 9 draws each\n\nsmall cells\n")
    wrong = forks.run("scripts/simulate_statistics.py", "--accuracy=1.5")
    assert wrong.returncode == 2
    assert wrong.stderr == "simulate_statistics.py: --accuracy=1.5 must lie between 0 and 1\n"


def test_programs_start_once_more_to_tune_the_memory(tmp_path):
    script = tmp_path / "program.py"
    script.write_text(
        "import os, sys\nfrom fairkd_jax import host_memory\nhost_memory.tune()\n"
        "print(os.environ['GLIBC_TUNABLES'], os.getpid(), *sys.argv[1:])\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "GLIBC_TUNABLES"}
    for given, expected in (({}, host_memory.SETTING), ({"GLIBC_TUNABLES": "x=1"}, "x=1")):
        process = subprocess.Popen(
            [sys.executable, "-u", str(script), "--a", "b c"],
            stdout=subprocess.PIPE,
            text=True,
            env=environment | given | {"PYTHONPATH": str(ROOT)},
        )
        printed, _ = process.communicate()
        assert printed.split() == [expected, str(process.pid), "--a", "b", "c"]


@pytest.mark.parametrize(
    ("beside", "level", "shown"),
    [
        ("fairkd_jax/data/split.py", logging.INFO, True),
        (".venv/lib/orbax/handler.py", logging.INFO, False),  # also in a clone that is called fairkd_jax
        (".venv/lib/orbax/handler.py", logging.WARNING, True),
    ],
)
def test_the_log_tells_what_the_package_says(beside, level, shown):
    path = ROOT / beside
    record = logging.LogRecord("absl", level, str(path), 1, "message", (), None)
    assert is_worth_reading(record) == shown
