"""The same as the command `fairkd-train`: see train.py --help."""

import sys

from fairkd_jax.commands import train

if __name__ == "__main__":
    sys.exit(train())
