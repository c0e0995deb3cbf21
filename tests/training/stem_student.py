"""configs/student.py where small networks are known, for the programs that tests start."""

from configs.student import get_config
from fairkd_jax.models.architecture import ARCHITECTURES
from tests.models.toy import STEMS

__all__ = ["get_config"]
ARCHITECTURES.update(STEMS)
