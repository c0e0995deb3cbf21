"""Data sets, their preparation, the input pipeline and augmentation on the device.

`pipeline` opens data sets, `batches` draws from them, `augment` runs on the device, and one package per data
set (`digits`, `utkface`, `manifest`) says what its images, labels and groups are.
"""
