"""Prints whether what it compiles was found in the cache: `python cached_program.py NUMBER`."""

import sys

import jax
import jax.numpy as jnp

HIT, MISSED = (f"/jax/compilation_cache/cache_{kind}" for kind in ("hits", "misses"))


def events(number):
    """What the cache says while a function with this number in it is compiled anew."""
    found = []

    def function(x):
        return jnp.sin(x) * number

    def listen(event, **_):
        found.append(event)

    jax.monitoring.register_event_listener(listen)
    try:
        jax.clear_caches()
        jax.jit(function)(jnp.float32(2.0))
    finally:
        jax.monitoring.unregister_event_listener(listen)
    return {event for event in found if event in (HIT, MISSED)}


if __name__ == "__main__":
    print(sorted(events(float(sys.argv[1]))))
