"""Every key of a run, with its type and meaning. The other files here change a few of them.

A preset, written behind a colon (`--config configs/rkd_adv.py:utkface`), fits data, models and schedule to
one another: none = digits, which need no download; `utkface`; `wider`; `manifest`, your own images.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from fairkd_jax.objectives import OBJECTIVES


def get_config(preset: str = "") -> ConfigDict:
    """The keys of a run that learns from labels alone; `preset` is a key of `PRESETS`."""
    if preset not in PRESETS:
        known = ", ".join(f":{name}" for name in PRESETS if name)
        raise ValueError(f"unknown preset {preset!r}; use {known}, or none for digits")
    config = ConfigDict()
    for add in (_add_run, _add_population, _add_models, _add_objectives, _add_optimizer, _add_data):
        add(config)
    PRESETS[preset](config)
    return config


def _add_population(config: ConfigDict) -> None:
    """Several students in one program; see configs/sweep.py. All empty: a lone one."""
    config.population = ConfigDict()
    config.population.seeds = ()  # of initialisation and dropout; the order of the data is common to all
    config.population.learning_rates = ()
    config.population.weights = ConfigDict()  # of objectives; every combination is a member
    for name in OBJECTIVES:
        config.population.weights[name] = ()
    config.population.wave_size = 0  # members that train at once; 0: all


def _add_run(config: ConfigDict) -> None:
    config.seed = 0  # initialisation and dropout
    config.batch_size = 64  # images per step, over all devices
    config.epochs = 20  # passes over the training split
    # Names from fairkd_jax.objectives.OBJECTIVES; each has a section of its own below.
    config.objectives = ("cross_entropy",)

    config.best = ConfigDict()  # which checkpoint is kept as `best`, by the validation split alone
    # Accuracy among checkpoints whose corrected mean absolute disparity is at most this; empty: accuracy.
    config.best.max_disparity = placeholder(float)

    config.log_every_steps = 20
    config.eval_every_epochs = 1.0  # on the validation split
    config.checkpoint_every_steps = 200
    config.tensorboard = False  # needs the extra `tensorboard`


def _add_models(config: ConfigDict) -> None:
    config.student = ConfigDict()
    config.student.architecture = "efficientnet_tiny"  # a name from fairkd_jax.models
    config.student.dtype = "float32"  # of the computation: float32 or bfloat16
    config.student.dropout_rate = placeholder(float)  # empty: the architecture's own
    config.student.stochastic_depth_rate = placeholder(float)  # empty: the architecture's own
    config.student.pretrained = ""  # a checkpoint file of timm, torchvision or Keras to start from
    config.student.frozen_norm = False  # BatchNorm keeps the statistics that it has
    # Share of its old running statistics that a step keeps; empty: the architecture's own, 0.9 if pretrained.
    config.student.norm_momentum = placeholder(float)
    config.student.rematerialize = False  # compute blocks again in the gradient: less memory, more time
    config.student.group_heads = False  # a head for each group, summed to classify (domain-independent)

    config.teacher = ConfigDict()
    config.teacher.checkpoint = ""  # a finished run's folder; empty: trained first, into WORKDIR/teacher
    config.teacher.architecture = "efficientnet_mini"
    config.teacher.dtype = "float32"
    # Used where the teacher is trained here; all else is as for the student.
    # Pixels of the side of its images, of the same crops; empty: data.image_size. With teacher.checkpoint,
    # it sees what it was trained on.
    config.teacher.image_size = placeholder(int)
    config.teacher.epochs = 20
    config.teacher.learning_rate = 3e-3
    config.teacher.dropout_rate = placeholder(float)
    config.teacher.stochastic_depth_rate = placeholder(float)
    config.teacher.pretrained = ""
    config.teacher.frozen_norm = False
    config.teacher.norm_momentum = placeholder(float)
    config.teacher.rematerialize = False
    config.teacher.group_heads = False

    config.finetune = ConfigDict()  # of a pretrained student, and of a teacher that is trained here
    config.finetune.backbone_scale = 1.0  # factor of the learning rate of all but the head
    config.finetune.head_first_epochs = 0.0  # so long the head alone moves
    config.finetune.frozen = ()  # patterns of names (see parameters.txt) that never move: "stem*,stage0*"


def _add_objectives(config: ConfigDict) -> None:
    config.cross_entropy = ConfigDict()
    config.cross_entropy.weight = 1.0
    config.cross_entropy.label_smoothing = 0.0
    config.cross_entropy.balanced = False  # weigh groups equally within each class

    config.ckd = ConfigDict()
    config.ckd.weight = 0.9
    config.ckd.temperature = 4.0
    config.ckd.standardize = False  # logits to mean 0 and deviation 1 over the classes first (Sun 2024)
    config.ckd.warmup_epochs = 0.0  # the weight rises linearly from 0 over so many epochs

    config.rkd_distance = ConfigDict()
    config.rkd_distance.weight = 25.0
    config.rkd_distance.normalize = False  # scale embeddings to length 1 first

    config.rkd_angle = ConfigDict()
    config.rkd_angle.weight = 50.0
    config.rkd_angle.normalize = False

    config.ctkd = ConfigDict()
    config.ctkd.weight = 0.9
    config.ctkd.variant = "global"  # one temperature, or one for each image: "instance"
    config.ctkd.start = 1.0  # the temperature stays between start and start + range
    config.ctkd.range = 20.0
    config.ctkd.initial = 1.0  # it begins at start + range * sigmoid(initial)
    config.ctkd.ramp_epochs = 10.0  # until the reversed gradient has its full strength
    config.ctkd.hidden = (256,)  # widths of the hidden layers of "instance"
    config.ctkd.standardize = False
    config.ctkd.decay = True  # whether optimizer.weight_decay acts on the temperature's parameters

    config.kdpp = ConfigDict()  # the embedding's direction and norm; used beside cross_entropy and ckd
    config.kdpp.weight = 1.0
    config.kdpp.dropout_rate = 0.5  # of the projector between unequal widths

    config.dkd = ConfigDict()
    config.dkd.weight = 1.0
    config.dkd.alpha = 1.0  # of the label's probability against all others'
    config.dkd.beta = 8.0  # of the others' shares
    config.dkd.temperature = 4.0
    config.dkd.warmup_epochs = 0.0
    config.dkd.standardize = False

    config.dist = ConfigDict()
    config.dist.weight = 1.0
    config.dist.beta = 1.0  # of the correlation over the classes of an image
    config.dist.gamma = 1.0  # of the correlation over the batch for a class
    config.dist.temperature = 4.0

    config.adversary = ConfigDict()
    config.adversary.weight = 1.0  # lambda: how strongly its reversed gradient acts on the student
    config.adversary.condition = "label"  # "label" (equalized odds) or "none" (demographic parity)
    config.adversary.source = "embedding"  # what it reads: "embedding" or "logits"
    config.adversary.hidden = (128, 128)  # widths of its hidden layers
    config.adversary.warmup = 0.1  # share of the training in which it learns and lambda is 0
    config.adversary.balanced = True  # weigh groups equally within each class
    config.adversary.lambda_mode = "weight"  # or "ratio": of its pull's norm to that of all others'
    config.adversary.projection = False  # also take out what would help it, of all gradients (Zhang 2018)
    config.adversary.steps = 1  # updates of the adversary for each one of the student
    config.adversary.learning_rate = 1e-2  # of its own optimizer, constant; fast enough to follow the student

    config.mfd = ConfigDict()  # each group's embeddings of a class as the teacher's of that class
    config.mfd.weight = 3.0

    config.bias_critic = ConfigDict()  # an earlier study's objective, as it was run; no method to recommend
    config.bias_critic.weight = 1.0  # lambda: how steeply the labels' loss grows with the predicted bias
    config.bias_critic.epsilon = 0.05  # the bias that is allowed
    config.bias_critic.margin = 0.01
    config.bias_critic.estimate = "first"  # image of the batch, or the "mean" over it
    config.bias_critic.learning_rate = 1e-3  # of its own optimizer, constant


def _add_optimizer(config: ConfigDict) -> None:
    config.optimizer = ConfigDict()
    config.optimizer.name = "adamw"  # or "sgd"
    config.optimizer.learning_rate = 3e-3
    config.optimizer.schedule = "cosine"  # or "constant"
    config.optimizer.warmup_epochs = 1.0
    config.optimizer.weight_decay = 1e-4  # neither on biases nor on norms
    config.optimizer.momentum = 0.9  # of "sgd"
    config.optimizer.clip_norm = 1.0  # 0.0: no clipping
    config.optimizer.ema_decay = 0.0  # evaluate an average of the student; 0.0: none


def _add_data(config: ConfigDict) -> None:
    config.data = ConfigDict()
    config.data.name = "digits"  # digits, utkface, wider_attribute, manifest
    config.data.source = ""  # folder, archive or manifest; empty: where the data set is looked for by itself
    config.data.directory = ""  # of prepared data; empty: $FAIRKD_DATA or ~/.cache/fairkd_jax/datasets
    config.data.seed = 0  # of the order and the augmentation
    config.data.size = 32  # pixels of the side at which images are stored
    config.data.resize = "squash"  # to a square: "squash", or "pad", which keeps the aspect
    config.data.quality = 0  # of the stored images as JPEG, 1 to 100; 0: PNG, which loses nothing
    config.data.image_size = 32  # pixels of the side that the models see
    # Where decoded images are kept: "device", "host", "none", or "auto": the first of these where they fit.
    config.data.cache = "auto"
    config.data.balance_groups = False  # draw the groups of a class equally often in training
    # "patch": a patch in each image tells its group (positive control); "shuffle": the groups of the training
    # images are dealt out again within each class (placebo).
    config.data.control = "none"
    config.data.max_bad_fraction = 0.01  # of files that may be unreadable or malformed
    config.data.digits = ConfigDict()
    config.data.digits.skew = 0.9  # share of the dominant tint within a class
    config.data.digits.noise = 0.0  # standard deviation of noise on the grey values, which lie in [0, 1]
    config.data.digits.seed = 0  # of the tints and the noise
    config.data.utkface = ConfigDict()
    config.data.utkface.target = "age_group"  # age_group, race or gender
    config.data.utkface.protected = "gender"
    config.data.wider_attribute = ConfigDict()
    # An image's group from its persons: "majority" (unknown at a tie), or "fraction" (male from a half on).
    config.data.wider_attribute.group_rule = "majority"
    # "official", or "capstone": half of the test images join train, a tenth of which validates.
    config.data.wider_attribute.split_rule = "official"
    config.data.wider_attribute.split_seed = 0  # of "capstone"
    config.data.manifest = ConfigDict()
    config.data.manifest.class_names = ()  # in the wanted order; empty: sorted
    config.data.manifest.group_names = ()

    config.augment = ConfigDict()
    config.augment.crop_scale = 1.0  # least share of the area that a random resized crop keeps; 1.0: no crop
    config.augment.flip = False  # mirror half of the images
    config.augment.brightness = 0.0
    config.augment.contrast = 0.0
    config.augment.saturation = 0.0


def _digits(config: ConfigDict) -> None:
    """The keys above are for digits."""


def _photographs(config: ConfigDict) -> None:
    """Small photographs of faces or scenes, trained from scratch."""
    config.batch_size = 64
    config.epochs = 12
    config.teacher.epochs = 12
    config.student.architecture = "efficientnet_tiny"
    config.teacher.architecture = "efficientnet_mini"
    config.data.size = 80
    config.data.image_size = 64
    config.augment.crop_scale = 0.5
    config.augment.flip = True
    config.augment.brightness = 0.2
    config.augment.contrast = 0.2


def _utkface(config: ConfigDict) -> None:
    _photographs(config)
    config.data.name = "utkface"


def _manifest(config: ConfigDict) -> None:
    _photographs(config)
    config.data.name = "manifest"


def _wider(config: ConfigDict) -> None:
    """WIDER Attribute at 224 pixels, EfficientNet-B3 to B0, for an accelerator or several."""
    config.batch_size = 128
    config.epochs = 15
    config.teacher.epochs = 10
    config.teacher.architecture, config.student.architecture = "efficientnet_b3", "efficientnet_b0"
    config.teacher.dtype = config.student.dtype = "bfloat16"
    config.optimizer.learning_rate = config.teacher.learning_rate = 1e-3
    config.optimizer.weight_decay = 1e-5
    config.data.name = "wider_attribute"
    config.data.size = 256
    config.data.image_size = 224
    config.augment.crop_scale = 0.5
    config.augment.flip = True
    config.augment.brightness = 0.2
    config.augment.contrast = 0.2
    config.augment.saturation = 0.2


PRESETS = {"": _digits, "utkface": _utkface, "manifest": _manifest, "wider": _wider}
