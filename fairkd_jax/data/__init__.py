"""Data sets, their preparation, the input pipeline and augmentation on the device.

`pipeline` opens data sets and makes batches, `augment` runs on the device, and one package per data set
(`digits`, `utkface`, `manifest`) says what its images, labels and groups are.
"""
