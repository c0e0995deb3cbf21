"""A method and an architecture from outside the package: one file, one table line each, and a config."""

import json

from tests.programs import run_program

MINE = '''
"""A debiasing objective with a learning rate of its own, and a network that is no EfficientNet."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from configs import ckd
from fairkd_jax.models import MODELS
from fairkd_jax.objectives import OBJECTIVES, Objective, Reversal
from fairkd_jax.ops import reverse_gradient
from fairkd_jax.types import Outputs


class Colours(nn.Module):
    """The mean colour of an image through two matrices; folding multiplies a gain into the first one."""

    num_classes: int
    folded: bool = False

    embedding_width = property(lambda self: 8)
    head_name = property(lambda self: "answer")

    @nn.nowrap
    def inference_form(self):
        return self.clone(folded=True)

    @nn.nowrap
    def fold_variables(self, variables):
        params = dict(variables["params"])
        gain = params.pop("gain")
        return {"params": params | {"colours": {"kernel": params["colours"]["kernel"] * gain[None]}}}

    def setup(self):
        self.colours = nn.Dense(8, use_bias=False)
        self.answer = nn.Dense(self.num_classes)
        if not self.folded:
            self.gain = self.param("gain", nn.initializers.constant(2.0), (8,))

    def classify(self, embedding, train=False):
        return Outputs(self.answer(embedding), embedding)

    def __call__(self, images, train=False):
        embedding = self.colours(jnp.mean(images, axis=(1, 2)))
        return self.classify(embedding if self.folded else embedding * self.gain[None], train)


def leveller(*, learning_rate: float = 0.05) -> Objective:
    """A linear probe of the group, behind a gradient reversal."""

    def init(key, info):
        return {"kernel": jnp.zeros((info.student_width, info.num_groups))}, {}

    def loss(params, state, inputs):
        features = reverse_gradient(inputs.student.embedding, inputs.strength)
        group = inputs.batch["group"]
        log_probs = jax.nn.log_softmax(features @ params["kernel"])
        nats = -jnp.take_along_axis(log_probs, jnp.maximum(group, 0)[:, None], axis=1)[:, 0]
        return jnp.where(group >= 0, nats, 0.0), (state, {})

    influence = Reversal(extra_steps=1)
    return Objective(init, loss, "LEVEL", influence, learning_rate=learning_rate, debiases=True)


OBJECTIVES["leveller"] = leveller
MODELS["colours"] = lambda num_classes: Colours(num_classes)


def get_config(preset=""):
    config = ckd.get_config(preset)
    config.objectives = (*config.objectives, "leveller")
    config.leveller = ConfigDict({"weight": 0.5, "learning_rate": 0.05})
    config.student.architecture = config.teacher.architecture = "colours"
    config.data.size = config.data.image_size = 16
    config.epochs = config.teacher.epochs = 1
    config.batch_size, config.log_every_steps = 256, 1
    config.finetune.backbone_scale, config.finetune.head_first_epochs = 0.5, 0.5
    return config
'''


def test_a_method_and_a_network_of_a_users_own_are_trained_and_evaluated(tmp_path, data_directory):
    (tmp_path / "mine.py").write_text(MINE)
    config = f"--config={tmp_path / 'mine.py'}"
    ended = run_program(
        "train.py", config, "--workdir=run", "--baseline", cwd=tmp_path, FAIRKD_DATA=data_directory
    )
    assert ended.returncode == 0, ended.stderr
    assert "CE + CKD + LEVEL(0.5)" in ended.stdout
    assert "CE + CKD + LEVEL(0)" in ended.stdout  # --baseline knows that it debiases
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["leveller/loss"] for line in lines if "loss" in line]
    assert losses[0] > losses[-1]  # an extra step of its own rate before each step of the student
    evaluation = json.loads((tmp_path / "run" / "eval" / "test.json").read_text())
    assert {evaluation[name]["architecture"] for name in ("teacher", "student", "baseline")} == {"colours"}
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    assert written["version"] == 1
    assert written["methods"]["leveller"] == {"label": "LEVEL", "debiases": True, "influence": "reversal"}
    # What is trained moves only where fine-tuning lets it: see tests/training/test_finetune.py.
    assert "answer/kernel" in (tmp_path / "run" / "parameters.txt").read_text()
