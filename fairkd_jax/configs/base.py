"""All keys of a config, each with its default and its meaning.

The other configs change some keys. `fairkd-train --list` prints all keys.
"""

from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from fairkd_jax.configs.data_keys import DATA_KEYS
from fairkd_jax.configs.debiasing import DEBIASING
from fairkd_jax.configs.keys import Key, list_options
from fairkd_jax.configs.presets import DEFAULT_PRESET, PRESETS
from fairkd_jax.errors import UsageError
from fairkd_jax.objectives import OBJECTIVES

_RUN = (
    Key("seed", 0, "Random seed of the initialization and of dropout."),
    Key("batch_size", 64, "Number of images in a step, over all devices."),
    Key("epochs", 20, "Number of passes over the training split."),
    Key(
        "objectives",
        ("cross_entropy",),
        "Names of the objectives that the student learns from, separated by commas; each has a section.",
    ),
    Key(
        "best.max_disparity",
        float,
        "Largest corrected mean absolute disparity on the validation split that the best checkpoint may have;"
        " empty chooses the best checkpoint by accuracy alone.",
    ),
    Key("log_every_steps", 20, "Number of steps between two reports of the training."),
    Key("eval_every_epochs", 1.0, "Number of epochs between two evaluations on the validation split."),
    Key("checkpoint_every_steps", 200, "Number of steps between two checkpoints."),
    Key(
        "checkpoints.keep",
        1,
        "Number of last checkpoints that stay, 2 or more of a population's members; with 2 a run goes on from"
        " the one before where the newest is damaged.",
    ),
    Key(
        "checkpoints.keep_every_epochs",
        0,
        "Number of epochs between two checkpoints that are saved and stay for good; 0 for none.",
    ),
    Key("tensorboard", False, "Whether to write TensorBoard files too, which needs the extra tensorboard."),
    Key(
        "writer",
        "",
        "Function of yours, as module:function, that also receives each step and its numbers by name.",
    ),
    Key(
        "population.seeds",
        (),
        "Seeds of the members of a population, who are all combinations of the lists; empty for seed alone.",
    ),
    Key(
        "population.learning_rates",
        (),
        "Learning rates that the members of a population try; empty keeps optimizer.learning_rate.",
    ),
    Key("population.wave_size", 0, "Number of members that train at once; 0 for all members."),
)
# Name -> default of the student, default of the teacher, meaning.
_MODEL: dict[str, tuple[Any, Any, str]] = {
    "architecture": ("efficientnet_tiny", "efficientnet_mini", "Name of the model; --list prints all names."),
    "dtype": ("float32", "float32", "Number format of the computation: float32 or bfloat16."),
    "dropout_rate": (float, float, "Dropout rate before the head; empty takes the model's own rate."),
    "stochastic_depth_rate": (
        float,
        float,
        "Highest probability that a block is skipped in training; empty takes the model's own rate.",
    ),
    "pretrained": ("", "", "Checkpoint file of timm, torchvision or Keras for the first weights."),
    "head": (
        "auto",
        "auto",
        "Head of a pretrained model: keep takes the file's head, new draws a head, and auto takes the"
        " file's only where the file names the same classes in the same order.",
    ),
    "norm_epsilon": (
        float,
        float,
        "Number that BatchNorm adds to the variance; empty takes the number of the library that wrote the"
        " pretrained file, or else the model's own.",
    ),
    "frozen_norm": (False, False, "Whether BatchNorm keeps the statistics that it starts with."),
    "norm_momentum": (
        float,
        float,
        "Share of the old statistics that BatchNorm keeps in a step; empty takes the model's own share, or"
        " 0.9 for a pretrained model.",
    ),
    "rematerialize": (
        False,
        False,
        "Whether to compute the inside of each block again for the gradient: less memory, more time.",
    ),
    "group_heads": (False, False, "Whether the model has a head for each group, summed to classify."),
}


def _describe_teacher(name: str, text: str) -> str:
    """Returns the meaning of a key of the teacher, from the meaning of the student's key of the same name."""
    return f"For a teacher that is trained in this run: {text[0].lower()}{text[1:]}"


_MODELS = (
    *(Key(f"student.{name}", student, text) for name, (student, _, text) in _MODEL.items()),
    Key(
        "teacher.checkpoint",
        "",
        "Folder of a finished run whose student is the teacher; empty trains a teacher first, in the folder"
        " teacher of the run.",
    ),
    *(
        Key(f"teacher.{name}", teacher, _describe_teacher(name, text))
        for name, (_, teacher, text) in _MODEL.items()
    ),
    Key(
        "teacher.image_size",
        int,
        "Side in pixels of the images of a teacher that is trained in this run, from the same crops; empty"
        " takes data.image_size.",
    ),
    Key(
        "teacher.epochs",
        20,
        "Number of epochs of a teacher that is trained in this run; 0 takes a pretrained teacher and its head"
        " as they are.",
    ),
    Key("teacher.learning_rate", 3e-3, "Highest learning rate of a teacher that is trained in this run."),
    Key("finetune.backbone_scale", 1.0, "Factor of the learning rate of all layers but the head."),
    Key("finetune.head_first_epochs", 0.0, "Number of first epochs in which the head alone learns."),
    Key(
        "finetune.frozen",
        (),
        "Patterns of names of arrays that never change, as in 'stem*,stage0*'; parameters.txt of a run lists"
        " the names.",
    ),
)
_OPTIMIZER = (
    Key("optimizer.name", "adamw", "Name of the optimizer: adamw or sgd."),
    Key("optimizer.learning_rate", 3e-3, "Highest learning rate of the student."),
    Key(
        "optimizer.schedule", "cosine", "Schedule of the learning rate after the warm-up: cosine or constant."
    ),
    Key("optimizer.warmup_epochs", 1.0, "Number of epochs in which the learning rate rises from 0."),
    Key("optimizer.weight_decay", 1e-4, "Weight decay, which acts neither on biases nor on norms."),
    Key("optimizer.momentum", 0.9, "Momentum of the optimizer sgd."),
    Key(
        "optimizer.clip_norm",
        1.0,
        "Norm to which a longer gradient is shortened, for each group of parameters; 0.0 for none.",
    ),
    Key(
        "optimizer.ema_decay",
        0.0,
        "Decay of the student's moving average, which is evaluated in place of the student; 0.0 for none.",
    ),
    Key(
        "optimizer.restart",
        False,
        "Whether a run that goes on with more epochs begins a schedule over the added epochs; otherwise one"
        " schedule spans all epochs, and the learning rate jumps.",
    ),
)
KEYS = (*_RUN, *_MODELS, *_OPTIMIZER, *DATA_KEYS)
# The weight of each objective; the other keys of its section are the options of its factory.
WEIGHTS = (
    Key("cross_entropy.weight", 1.0, "Weight of the loss of the labels."),
    Key("ckd.weight", 0.9, "Weight of the loss from the teacher's softened probabilities."),
    Key("rkd_distance.weight", 25.0, "Weight of the loss from distances between embeddings."),
    Key("rkd_angle.weight", 50.0, "Weight of the loss from angles between embeddings."),
    Key("ctkd.weight", 0.9, "Weight of the loss at a temperature that is learnt."),
    Key("kdpp.weight", 1.0, "Weight of the loss from the embedding's direction and length."),
    Key("dkd.weight", 1.0, "Weight of the loss of decoupled distillation."),
    Key("dist.weight", 1.0, "Weight of the loss from correlations of the teacher's probabilities."),
    Key("adversary.weight", 1.0, "Lambda, by which the adversary's reversed gradient acts on the student."),
    Key("mfd.weight", 3.0, "Weight of the distance of each group's embeddings to the teacher's."),
    Key("bias_critic.weight", 1.0, "Lambda, by which the loss of the labels grows with the predicted bias."),
)


def list_keys() -> tuple[Key, ...]:
    """Lists all keys of a config, with the default values of the preset digits."""
    members = [
        Key(
            f"population.weights.{name}",
            (),
            f"Values of {name}.weight that the members of a population try; empty keeps the weight.",
        )
        for name in OBJECTIVES
    ]
    objectives = []
    for weight in WEIGHTS:
        name = weight.name.partition(".")[0]
        objectives += [weight, *list_options(name, OBJECTIVES[name])]
    return (*KEYS, *members, *objectives)


def get_config(words: str = "") -> ConfigDict:
    """Returns the config of a student that learns from labels alone.

    Args:
      words: Key of `PRESETS`, or an empty string for digits.

    Returns:
      Config with all keys.

    Raises:
      UsageError: The preset is unknown, or is a debiasing word.
    """
    preset = words or DEFAULT_PRESET
    if preset not in PRESETS:
        if set(preset.split(",")) & set(DEBIASING):
            raise UsageError(
                f"{preset}: this config file accepts a preset alone; add @accept_words of"
                " fairkd_jax.configs.words to get_config in the file, and debiasing words work too"
            )
        raise UsageError(f"unknown preset {preset!r}; the presets are {', '.join(PRESETS)}")
    config = ConfigDict()
    for key in list_keys():
        _add_key(config, key)
    PRESETS[preset](config)
    return config


def _add_key(config: ConfigDict, key: Key) -> None:
    *sections, name = key.name.split(".")
    for section in sections:
        if section not in config:
            config[section] = ConfigDict()
        config = config[section]
    is_empty = isinstance(key.default, type)
    config[name] = placeholder(key.default) if is_empty else key.default  # a new placeholder for each config
