"""The same as the command `fairkd-power`: see power_analysis.py --help."""

import sys

from fairkd_jax.commands import power

if __name__ == "__main__":
    sys.exit(power())
