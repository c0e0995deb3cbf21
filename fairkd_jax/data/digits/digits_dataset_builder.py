"""The tfds builder of the painted digits."""

from fairkd_jax.data.builder import PreparedBuilder


class Builder(PreparedBuilder):
    """Digits 0 to 9; the groups are two tints, skewed by class in train and val, paired in test."""

    ABOUT = "scikit-learn's 1,797 handwritten digits, painted in one of two tints that tell the group."
    HOMEPAGE = "https://archive.ics.uci.edu/dataset/80"
