"""The same as the command `fairkd-demo`: see demo.py --help."""

import sys

from fairkd_jax.commands import demo

if __name__ == "__main__":
    sys.exit(demo())
