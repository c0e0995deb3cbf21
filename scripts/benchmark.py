"""The same as the command `fairkd-benchmark`: see benchmark.py --help."""

import sys

from fairkd_jax.commands import benchmark

if __name__ == "__main__":
    sys.exit(benchmark())
