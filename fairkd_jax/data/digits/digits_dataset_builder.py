"""The tfds builder of the painted digits."""

from fairkd_jax.data.builder import PreparedBuilder


class Builder(PreparedBuilder):
    """Builder of the digits 0 to 9; two tints are the groups, skewed by class in train and val."""

    ABOUT = "scikit-learn's 1,797 handwritten digits, painted in one of two tints, which show the group."
    HOMEPAGE = "https://archive.ics.uci.edu/dataset/80"
