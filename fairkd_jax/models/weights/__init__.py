"""Pretrained weights: checkpoint files that people have, read into our variables and written from them."""
