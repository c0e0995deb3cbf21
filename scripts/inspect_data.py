"""The same as the command `fairkd-inspect`: see inspect_data.py --help."""

import sys

from fairkd_jax.commands import inspect

if __name__ == "__main__":
    sys.exit(inspect())
