"""The same as the command `fairkd-class-means`: see class_means.py --help."""

import sys

from fairkd_jax.commands import class_means

if __name__ == "__main__":
    sys.exit(class_means())
