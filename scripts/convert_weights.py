"""The same as the command `fairkd-convert`: see convert_weights.py --help."""

import sys

from fairkd_jax.commands import convert

if __name__ == "__main__":
    sys.exit(convert())
