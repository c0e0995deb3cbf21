"""The same as the command `fairkd-simulate`: see simulate_statistics.py --help."""

import sys

from fairkd_jax.commands import simulate

if __name__ == "__main__":
    sys.exit(simulate())
