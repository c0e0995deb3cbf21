"""The same as the command `fairkd-eval`: see eval.py --help."""

import sys

from fairkd_jax.commands import evaluate

if __name__ == "__main__":
    sys.exit(evaluate())
