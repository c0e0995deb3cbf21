"""The tfds builder of the images in a manifest."""

from fairkd_jax.data.builder import PreparedBuilder


class Builder(PreparedBuilder):
    """Builder that keeps the order of the rows."""

    ABOUT = "Images listed in a manifest with the columns path, label, group and split."
