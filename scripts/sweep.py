"""The same as the command `fairkd-sweep`: see sweep.py --help."""

import sys

from fairkd_jax.commands import sweep

if __name__ == "__main__":
    sys.exit(sweep())
