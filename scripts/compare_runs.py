"""The same as the command `fairkd-compare`: see compare_runs.py --help."""

import sys

from fairkd_jax.commands import compare

if __name__ == "__main__":
    sys.exit(compare())
