"""The same as the command `fairkd-card`: see card.py --help."""

import sys

from fairkd_jax.commands import card

if __name__ == "__main__":
    sys.exit(card())
