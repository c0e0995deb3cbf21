"""The same as the command `fairkd-debiasing-table`: see debiasing_table.py --help."""

import sys

from fairkd_jax.commands import debiasing_table

if __name__ == "__main__":
    sys.exit(debiasing_table())
