"""Where the numbers of a run go: a file of lines, TensorBoard's files, a function of the user."""

import json
import re
import struct
import sys

import pytest

from fairkd_jax import errors
from fairkd_jax.errors import UsageError
from fairkd_jax.training.writers import (
    FunctionWriter,
    JsonlWriter,
    TensorboardWriter,
    import_writer,
    open_writers,
)
from tests.programs import ROOT


def test_lines_after_the_resumed_step_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = ['{"step": 1, "loss": 3.0}', '{"step": 3, "loss": 2.0}', '{"step": null}', '{"step": "1"}', "5"]
    lines += ['{"step": NaN}', "[1]", "[" * 100_000 + "]" * 100_000, '{"step": 2, "lo']
    path.write_bytes("\n".join(lines).encode() + b"\n\xff\xfe\x80")
    writer = JsonlWriter(path, 2)
    writer.write_scalars(2, {"loss": float("nan"), "accuracy": 0.5})
    writer.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [{"step": 1, "loss": 3.0}, {"step": 2, "loss": None, "accuracy": 0.5}]


def test_tensorboard_without_its_extra_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UsageError, match=r"with_env\.py --extra tensorboard"):
        TensorboardWriter(tmp_path, 0)
    monkeypatch.setattr(errors, "_WITH_ENV", tmp_path / "with_env.py")  # as where the wheel is installed
    with pytest.raises(UsageError, match=r"install it with `pip install 'fairkd_jax\[tensorboard\]'`"):
        TensorboardWriter(tmp_path, 0)


def events_of(path):
    """The events of a file: records of a length, its checksum, the bytes, and their checksum."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    content = path.read_bytes()
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        yield event_pb2.Event.FromString(content[12 : 12 + length])
        content = content[16 + length :]


def test_tensorboard_reads_each_number_as_a_scalar(tmp_path):
    writers = open_writers(tmp_path, 0, tensorboard=True, function="")
    writer = writers[1]
    writer.write_scalars(1, {"loss": 3.0, "validation/accuracy": 0.5})
    writer.write_scalars(2, {"loss": float("nan")})
    for each in writers:
        each.flush()
        each.close()
    (path,) = (tmp_path / "tensorboard").iterdir()
    found = [
        (event.step, value.tag, value.simple_value)
        for event in events_of(path)
        for value in event.summary.value
    ]
    assert found[:2] == [(1, "loss", 3.0), (1, "validation/accuracy", 0.5)]
    assert found[2][:2] == (2, "loss")
    assert found[2][2] != found[2][2]  # NaN stays NaN


LOG = """
lines = []


def log(step, scalars):
    lines.append((step, scalars))


def log_folder(step, scalars, folder):
    lines.append((step, scalars, folder))


def wrong(step):
    lines.append(step)


def late(step, scalars):
    import own_helper

    own_helper.fail(step)


nothing = None
"""


ODD = {"error": "raise RuntimeError('oops')", "exit": "raise SystemExit(3)", "syntax": "("}


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """A module of the user in the current folder, which is not on Python's path."""
    (tmp_path / "own_log.py").write_text(LOG)
    for name, code in ODD.items():
        (tmp_path / f"own_{name}.py").write_text(code)
    (tmp_path / "own_helper.py").write_text("def fail(step):\n    raise OSError(28, 'No space left')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    yield
    for name in ("own_log", "own_helper"):
        sys.modules.pop(name, None)


def test_a_function_of_the_user_gets_steps_and_numbers(own_module, tmp_path):
    (tmp_path / "b").mkdir()
    first, writer = open_writers(tmp_path, 0, tensorboard=False, function="own_log:log")
    second, other = open_writers(tmp_path / "b", 0, tensorboard=False, function="own_log:log_folder")
    writer.write_scalars(1, {"loss": 3.0})
    other.write_scalars(2, {"loss": 2.0})
    for each in (first, writer, second, other):
        each.flush()
        each.close()
    assert sys.modules["own_log"].lines == [(1, {"loss": 3.0}), (2, {"loss": 2.0}, tmp_path / "b")]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_log", "names no function"),
        ("own_log:", "names no function"),
        ("own_log.log", "names no function"),
        ("no_log:log", "No module named 'no_log'"),
        ("own_log:nix", "has no attribute 'nix'"),
        ("own_log:nothing", "is no function"),
        ("own_log:wrong", "must take a step and a dict of numbers, and may take `folder` (too many"),
        ("builtins:dict", "must take a step and a dict of numbers"),
        ("own_error:log", "cannot be imported (RuntimeError('oops'))"),
        ("own_exit:log", "cannot be imported (SystemExit(3))"),
        ("own_syntax:log", "cannot be imported (SyntaxError("),
        ("../own_log:log", "names no function"),
    ],
)
def test_a_function_that_is_not_there_is_said_before_the_training(own_module, name, message):
    with pytest.raises(UsageError, match=re.escape(message)) as refused:
        import_writer(name)
    assert str(refused.value).startswith(f"writer={name!r}")


def test_an_error_of_the_function_names_it_and_the_step(own_module, tmp_path):
    """The function imports another module of the user as late as that."""
    writer = FunctionWriter(import_writer("own_log:late"), tmp_path)
    with pytest.raises(RuntimeError, match=r"the function of writer failed at step 3: .*No space left"):
        writer.write_scalars(3, {})


def test_tensorboard_hides_what_a_resumed_run_repeats(tmp_path):
    writer = TensorboardWriter(tmp_path, 5)
    writer.write_scalars(6, {"loss": 1.0})
    writer.close()
    (path,) = (tmp_path / "tensorboard").iterdir()
    marks = [event for event in events_of(path) if event.HasField("session_log")]
    assert [event.step for event in marks] == [6]


def test_the_examples_of_the_docs_log_what_they_get(tmp_path, monkeypatch):
    """docs/training.md, with a stand-in for each library."""
    logged = []

    class Library:  # what both examples call
        experiment_id = "e"
        run_id = "r"

        def __getattr__(self, name):
            return self

        def __call__(self, *args, **options):
            return self

        def log(self, scalars, step):
            logged.append(("wandb", step, scalars))

        def log_metric(self, run, name, value, step):
            logged.append(("mlflow", step, {name: value}))

    text = (ROOT / "docs" / "training.md").read_text()
    examples = re.findall(r"`(log_\w+)\.py`.*?```python\n(.*?)```", text, re.DOTALL)
    assert [name for name, _ in examples] == ["log_wandb", "log_mlflow"]
    monkeypatch.chdir(tmp_path)
    for name, code in examples:
        library = name.removeprefix("log_")
        monkeypatch.setitem(sys.modules, library, Library())
        (tmp_path / f"{name}.py").write_text(code)
        assert f"--config.writer={name}:log`" in text
        writer = FunctionWriter(import_writer(f"{name}:log"), tmp_path)
        writer.write_scalars(7, {"loss": 1.0})
        writer.write_scalars(8, {"loss": 0.5})
        monkeypatch.delitem(sys.modules, name)
    assert logged == [
        (lib, step, {"loss": x}) for lib in ("wandb", "mlflow") for step, x in ((7, 1.0), (8, 0.5))
    ]
