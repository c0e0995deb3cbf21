"""The tfds builder of UTKFace."""

from fairkd_jax.data.builder import PreparedBuilder


class Builder(PreparedBuilder):
    """Builder of faces, sorted by file name, with label and group from age group, gender and race."""

    ABOUT = "UTKFace: aligned and cropped faces with age, gender and race. Non-commercial research use only."
    HOMEPAGE = "https://susanqq.github.io/UTKFace"
