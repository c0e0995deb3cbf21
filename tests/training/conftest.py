"""A small task with everything a step needs: two tiny models, four objectives, eight images."""

import dataclasses
import functools
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import student as student_config
from configs import teacher as teacher_config
from fairkd_jax.data.augment import Augmentation, augment
from fairkd_jax.data.batches import iterate_train_batches
from fairkd_jax.engine.sharding import make_batch_sharding, make_mesh, make_replicated_sharding, to_global
from fairkd_jax.engine.state import rng_key
from fairkd_jax.engine.train_step import init_state, make_train_step
from fairkd_jax.models import EfficientNet
from fairkd_jax.models.architecture import ARCHITECTURES, Architecture, Stage
from fairkd_jax.objectives import TaskInfo, create_objective
from fairkd_jax.recipe.parse import parse_recipe
from fairkd_jax.runs.dataset import describe_data, open_data
from fairkd_jax.training import build, train
from fairkd_jax.training.checks import check_data, check_recipe
from fairkd_jax.training.context import RunContext
from fairkd_jax.training.run import prepare_teacher
from fairkd_jax.training.student_log import Meter
from tests.models.toy import STEMS


@pytest.fixture(autouse=True, scope="package")
def stems():
    """Networks that compile in a second, by their names in configs."""
    ARCHITECTURES.update(STEMS)
    yield
    for name in STEMS:
        del ARCHITECTURES[name]


BATCH, SIZE, CLASSES = 16, 16, 4
COUNTS = np.array([[90, 10, 90, 10], [10, 90, 10, 90]])  # training images by group and class
NAMES = ("cross_entropy", "ckd", "rkd_distance", "rkd_angle", "adversary")
WEIGHTS = {"cross_entropy": 1.0, "ckd": 0.9, "rkd_distance": 25.0, "rkd_angle": 50.0, "adversary": 1.0}
WEIGHTS |= {"mfd": 3.0, "bias_critic": 2.0}


def toy(head, rate):
    """Two stages of one small block each: compiles in a few seconds."""
    stages = tuple(Stage(kernel=3, stride=s, expand=2, filters=f, blocks=1) for s, f in ((1, 8), (2, 12)))
    architecture = Architecture(8, stages, head, SIZE, dropout_rate=rate, stochastic_depth_rate=rate)
    return EfficientNet(architecture, CLASSES)


@functools.cache
def variables_of(head, group_heads, key):
    """The first variables of a network, which know nothing of its dropout."""
    network = toy(head, 0.0).clone(group_heads=group_heads)
    return jax.jit(network.init)(key(), jnp.zeros((1, SIZE, SIZE, 3)))


def teacher_key():
    return jax.random.key(1)


def student_key():
    return rng_key(0, "init/student")


class Task:
    """Builds the step of a small run; keyword arguments replace its parts."""

    def __init__(
        self,
        names=NAMES,
        optimizers=None,
        total_steps=20,
        ema_decay=0.0,
        options=None,
        flip=True,
        rate=0.2,
        group_heads=0,
        counts=COUNTS,
        dtype=jnp.float32,
        class_means=None,
    ):
        self.student = toy(24, rate).clone(group_heads=group_heads, dtype=dtype)
        self.teacher = toy(32, rate).clone(dtype=dtype)
        objectives = {name: create_objective(name, **(options or {}).get(name, {})) for name in names}
        optimizers = optimizers or {"student": optax.sgd(0.01), "adversary": optax.sgd(0.1)}
        self.teacher_variables = variables_of(32, 0, teacher_key)
        info = TaskInfo(
            CLASSES,
            len(counts),
            self.student.architecture.head,
            self.teacher.architecture.head,
            counts,
            class_means,
        )
        common = {"student": self.student, "objectives": objectives, "optimizers": optimizers}
        options = {"info": info, "image_size": SIZE, "with_ema": ema_decay > 0}
        self.init_with = functools.partial(init_state, **common, **options)
        # The same student for every task with seed 0, without tracing its network again.
        variables = variables_of(24, group_heads, student_key)
        given = SimpleNamespace(init=lambda key, image: variables)
        self.init = functools.partial(init_state, **common | {"student": given}, **options, seed=0)
        self.step = make_train_step(
            **common,
            teacher=self.teacher,
            augment=functools.partial(augment, augmentation=Augmentation(flip=flip), size=SIZE),
            num_groups=len(counts),
            data_seed=0,
            total_steps=total_steps,
            steps_per_epoch=5.0,
            ema_decay=ema_decay,
        )
        self.weights = {name: jnp.float32(WEIGHTS.get(name, 1.0)) for name in names}
        self.compiled_init, self.compiled_step = jax.jit(self.init), jax.jit(self.step)
        self.compiled_teacher = jax.jit(self.teacher.apply)


def batch(seed=0, size=BATCH):
    """A batch in which the group tints the image."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 2, size).astype(np.int32)
    image = rng.integers(0, 200, (size, SIZE, SIZE, 3)).astype(np.uint8)
    image[..., 0] += (50 * group[:, None, None]).astype(np.uint8)
    return {
        "image": image,
        "label": rng.integers(0, CLASSES, size).astype(np.int32),
        "group": group,
        "index": np.arange(size, dtype=np.int32),
        "mask": np.ones(size, np.float32),
    }


@optax.inject_hyperparams
def clipped_sgd(learning_rate, max_norm):
    """Gradient descent whose settings lie in its state: one compiled step serves them all."""
    return optax.chain(optax.clip_by_global_norm(max_norm), optax.sgd(learning_rate))


class Whole(Task):
    """The task with all of its parts; one compiled step serves every seed, weight, rate and first step."""

    def __init__(self):
        optimizers = {group: clipped_sgd(0.01, 1e9) for group in ("student", "adversary")}
        super().__init__(optimizers=optimizers, ema_decay=0.9, options={"adversary": {"warmup": 0.49}})
        self._steps = {}
        self._start = jax.jit(self.init_with)

    def start(self, seed=0, at=0, **settings):
        """The state of a seed before step `at`; `student` and `adversary` are their optimizers' settings."""
        state = self._start(seed=np.uint32(seed))
        optimizers = {
            group: own._replace(hyperparams=own.hyperparams | jax.tree.map(jnp.float32, settings[group]))
            if group in settings
            else own
            for group, own in state.opt_state.items()
        }
        return state.replace(step=jnp.int32(at), opt_state=optimizers)

    def run(self, batches, weights=None, mesh=None, again=False, **settings):
        """Runs the compiled step over the batches; returns the last state and the metrics of each step.

        With `again`, every step is the one at which the run starts, with the keys of that step.
        """
        mesh = mesh or make_mesh(jax.devices()[:1])
        if mesh not in self._steps:
            # Whatever else is new, nothing is compiled again.
            traced_once = chex.assert_max_traces(lambda *arguments: self.step(*arguments), 1)
            self._steps[mesh] = jax.jit(traced_once, donate_argnums=0)
        everywhere = make_replicated_sharding(mesh)
        first = self.start(**settings)
        number = jax.device_put(first.step, everywhere)
        state = jax.device_put(first, everywhere)
        teacher = jax.device_put(self.teacher_variables, everywhere)
        given = {name: jnp.float32(value) for name, value in (weights or {}).items()}
        weights = jax.device_put(self.weights | given, everywhere)
        history = []
        for batch in batches:
            arrays = to_global(batch, make_batch_sharding(mesh))
            if again:
                state = state.replace(step=jnp.copy(number))
            with jax.transfer_guard("disallow"):
                state, metrics = self._steps[mesh](state, teacher, arrays, weights)
            history.append(jax.device_get(metrics))
        return jax.device_get(state), history


@pytest.fixture(scope="session")
def make_task():
    return Task


@pytest.fixture(scope="module")  # what was compiled is forgotten after a file
def whole():
    return Whole()


@pytest.fixture(scope="session")
def make_batch():
    return batch


@pytest.fixture(scope="package")
def taught(make_config, make_once):
    """A teacher that is worth learning from, of another width than the student; it is only read."""

    def make(workdir):
        config = make_config(teacher_config, epochs=4, batch_size=64)
        config.student.architecture = config.teacher.architecture
        train(config, workdir, devices=jax.devices()[:1])

    return make_once("teacher", make)


@pytest.fixture(scope="package")
def finished(make_config, make_once):
    """A run of `student.py` of 8 steps on one device; it is only read."""
    return make_once("finished", lambda workdir: train(make_config(), workdir, devices=jax.devices()[:1]))


@pytest.fixture(scope="package")
def learn(taught):
    """Returns a function that trains as `train` does, but leaves nothing behind.

    From a config it makes the means of each step, and the last state.
    """

    def learn(config, epochs=3):
        config.teacher.checkpoint, config.teacher.architecture = str(taught), "wide_stem"
        config.batch_size, config.epochs = 64, epochs
        recipe, devices = parse_recipe(config), jax.devices()[:1]
        check_recipe(recipe)
        dataset = open_data(recipe.data)
        check_data(recipe, dataset)
        run = prepare_teacher(RunContext(taught, recipe, dataset, describe_data(dataset), devices, ""))
        program = build.build_program(run, make_mesh(devices))
        batches = iterate_train_batches(
            program.train,
            batch_size=program.batch_size,
            seed=program.data_seed,
            with_images=not program.images_on_device,
            balanced=program.balanced,
        )
        state, meter, lines = program.init(), Meter(program.train.counts), []
        for step in range(program.total_steps):
            state, metrics = program.step(state, program.teacher_variables, next(batches), program.weights)
            meter.add(step + 1, jax.device_get(metrics))
            lines.append(meter.take_means())
        return lines, state

    return learn


@pytest.fixture(scope="session")
def make_config(data_directory):
    def make(module=student_config, words="", **changes):
        config = module.get_config(words)
        config.data.directory, config.data.size, config.data.image_size = data_directory, 16, 16
        config.student.architecture, config.teacher.architecture = "stem", "wide_stem"
        config.epochs = config.teacher.epochs = 2
        config.batch_size, config.log_every_steps = 256, 2
        config.optimizer.warmup_epochs = 0.5
        for key, value in changes.items():
            section, _, name = key.rpartition("__")
            (config[section] if section else config)[name] = value
        return config

    return make


@pytest.fixture(scope="module")
def built_once():
    """Runs of one config share their compiled program, as they do not in processes of their own."""
    build_program, programs = build.build_program, {}

    def build_once(run, mesh, *, name="", students=()):
        whole = run.recipe.config.copy_and_resolve_references()
        # These two say what the loop does, not what is compiled.
        whole.checkpoint_every_steps = whole.log_every_steps = 0
        taught = run.teacher.compute_fingerprint() if run.teacher else None
        key = (whole.to_json(), mesh, name or run.name, taught, *(own.name for own in students))
        if key not in programs:
            programs[key] = build_program(run, mesh, name=name, students=students)
        recipe = run.recipe
        own = {"log_every": recipe.log_every_steps, "checkpoint_every": recipe.checkpoint_every_steps}
        return dataclasses.replace(programs[key], **own)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "build_program", build_once)
        yield
