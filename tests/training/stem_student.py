"""configs/student.py with a network that compiles in a second, for the programs that tests start."""

from configs import student
from fairkd_jax.models.architecture import ARCHITECTURES
from tests.models.toy import STEMS

ARCHITECTURES.update(STEMS)


def get_config(preset=""):
    config = student.get_config(preset)
    config.student.architecture = "stem"
    return config
