"""Data sets, their preparation, the input pipeline and augmentation on the device.

`pipeline` opens a data set, `batches` yields batches of its splits, and `augment` runs on the device. Each
data set has a package of its own (`digits`, `utkface`, `wider_attribute`, `manifest`), which defines its
images, labels and groups.
"""
