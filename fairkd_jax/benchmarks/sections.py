"""The sections of the suite of an accelerator; nothing here imports JAX."""

# The sections in the order of their value, with their seconds on one H100 with 16 cores, PyTorch included.
# The seconds are estimates: no section has run there to its end.
SECTIONS = {
    "correctness": 120,
    "step": 240,
    "kernels": 15,
    "depthwise": 60,
    "population": 100,
    "small_population": 70,
    "best_batch": 200,
    "memory": 60,
    "data": 120,
    "curves": 110,
}
