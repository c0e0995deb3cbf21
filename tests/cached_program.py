"""Prints whether what it compiles was found in the cache: `python cached_program.py`."""

import jax
import jax.numpy as jnp

HIT, MISSED = (f"/jax/compilation_cache/cache_{kind}" for kind in ("hits", "misses"))


def function(x):
    return jnp.sin(x) * 0.36912


def events():
    """What the cache says while the function is compiled anew."""
    found = []

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
    print(sorted(events()))
