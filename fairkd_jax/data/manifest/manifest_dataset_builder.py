"""The tfds builder of images that a manifest lists."""

from fairkd_jax.data.builder import PreparedBuilder


class Builder(PreparedBuilder):
    """The rows of a manifest in their order."""

    ABOUT = "Images listed in a manifest with the columns path, label, group and split."
