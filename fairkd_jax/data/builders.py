"""The table of tfds builders, separate from `catalog` because the import of tfds is slow."""

from fairkd_jax.data.builder import PreparedBuilder
from fairkd_jax.data.digits.digits_dataset_builder import Builder as Digits
from fairkd_jax.data.manifest.manifest_dataset_builder import Builder as Manifest
from fairkd_jax.data.utkface.utkface_dataset_builder import Builder as UTKFace
from fairkd_jax.data.wider_attribute.wider_attribute_dataset_builder import Builder as WiderAttribute

BUILDERS: dict[str, type[PreparedBuilder]] = {
    "digits": Digits,
    "utkface": UTKFace,
    "manifest": Manifest,
    "wider_attribute": WiderAttribute,
}
