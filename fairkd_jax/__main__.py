"""Starts a command of the package: `python -m fairkd_jax NAME ...`; without a name, lists all commands."""

import sys

from fairkd_jax.commands import main

sys.exit(main())
