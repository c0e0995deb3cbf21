#!/usr/bin/env bash
# What a GPU that is there for a quarter of an hour is asked: two calls, back to back on one machine.
#
#   scripts/benchmark_gpu.sh 1 OUT    the longest kernels of the step, then the step against PyTorch
#   scripts/benchmark_gpu.sh 2 OUT    correctness, depthwise convolutions, populations; then what still fits
#
# OUT is a folder for the JSON files. python3 needs jax for the GPU, flax, optax, orbax-checkpoint, torch and timm.
# Where .whl holds wheels, they are unpacked into a folder of their own and take part. PYTHON and MINUTES may name
# another interpreter and another limit for a call.
#
# Nearly all of the time goes to XLA's search for the fastest kernels: with its own settings it had not ended for the
# step after 290 s on an H100 with 16 cores; without any search, two cores compile it in 40 s. So the search that
# compares two compilers for every fusion is off (where it had ended, it took the one that is used without it in 94 of
# 100 cases), and products are cuBLAS's. XLA_FLAGS may say otherwise: with XLA_FLAGS= a call has XLA's own settings.
# Never dump XLA's modules here: each candidate of the search is one.
#
# How many seconds each section may take is in fairkd_jax/benchmarks/suite.py. A section that would not end in time is
# left out, and the JSON file is written after each one.
set -euo pipefail
cd "$(dirname "$0")/.."
call=${1:?which call, 1 or 2}; out=${2:?a folder for the results}; python=${PYTHON:-python3}
case $call in
  1) sections=kernels,step ;;
  2) sections=correctness,depthwise,population,small_population,memory,data,curves,best_batch ;;
  *) echo "benchmark_gpu.sh: the call is 1 or 2, not $call" >&2; exit 2 ;;
esac
scratch=${TMPDIR:-/tmp}/fairkd_gpu; mkdir -p "$out" "$scratch"
if compgen -G '.whl/*.whl' > /dev/null && [ ! -e "$scratch/site.done" ]; then
  "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$scratch/site" .whl/*.whl
  touch "$scratch/site.done"
fi
# The package need not be installed. Both calls share what is compiled; PyTorch needs its half of the memory.
export PYTHONPATH=$PWD:$scratch/site PYTHONUNBUFFERED=1 JAX_COMPILATION_CACHE_DIR=$scratch/compiled
quick="--xla_gpu_experimental_enable_fusion_autotuner=false --xla_gpu_enable_triton_gemm=false"
export XLA_FLAGS=${XLA_FLAGS-$quick}
export XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.45}
exec "$python" scripts/benchmark.py suite --sections "$sections" --minutes "${MINUTES:-5.5}" --rounds 7 \
  --against torch --python "${TORCH_PYTHON:-$python}" --json "$out/suite-$call.json"
