"""The same as the command `fairkd-report`: see report.py --help."""

import sys

from fairkd_jax.commands import report

if __name__ == "__main__":
    sys.exit(report())
