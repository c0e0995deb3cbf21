"""The programs that `fairkd_jax.commands` starts; each module defines its flags when it is imported."""
