"""The tfds builder of WIDER Attribute."""

from fairkd_jax.data.builder import PreparedBuilder


class Builder(PreparedBuilder):
    """Whole images, sorted by file name; the label is one of 16 events, the group by the majority rule."""

    ABOUT = "WIDER Attribute: photographs of 30 event scenes in 16 classes, with the gender of the persons."
    HOMEPAGE = "http://mmlab.ie.cuhk.edu.hk/projects/WIDERAttribute.html"
