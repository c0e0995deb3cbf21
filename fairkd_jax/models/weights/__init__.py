"""Pretrained weights: published checkpoint files, read into variables and written from variables."""
