"""The teacher alone, from labels: `teacher.checkpoint` of other runs can point to its folder."""

from ml_collections import ConfigDict

from configs import base


def get_config(preset: str = "") -> ConfigDict:
    config = base.get_config(preset)
    for key in config.student:
        config.student[key] = config.teacher[key]
    config.epochs = config.teacher.epochs
    config.data.image_size = config.teacher.image_size or config.data.image_size
    config.optimizer.learning_rate = config.teacher.learning_rate
    return config
