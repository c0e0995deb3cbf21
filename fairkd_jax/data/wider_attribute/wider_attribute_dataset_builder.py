"""The tfds builder of WIDER Attribute."""

from fairkd_jax.data.builder import PreparedBuilder


class Builder(PreparedBuilder):
    """Builder of whole images, sorted by file name, with 16 events as labels and the majority group."""

    ABOUT = "WIDER Attribute: photographs of 30 event scenes in 16 classes, with the gender of the persons."
    HOMEPAGE = "http://mmlab.ie.cuhk.edu.hk/projects/WIDERAttribute.html"
