"""The tfds builder of UTKFace."""

from fairkd_jax.data.builder import PreparedBuilder


class Builder(PreparedBuilder):
    """Faces, sorted by file name; two of age group, gender and race are label and group."""

    ABOUT = "UTKFace: aligned and cropped faces with age, gender and race. Non-commercial research use only."
    HOMEPAGE = "https://susanqq.github.io/UTKFace"
