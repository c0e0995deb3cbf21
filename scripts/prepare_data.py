"""The same as the command `fairkd-prepare`: see prepare_data.py --help."""

import sys

from fairkd_jax.commands import prepare

if __name__ == "__main__":
    sys.exit(prepare())
