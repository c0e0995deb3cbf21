#!/usr/bin/env bash
# What a GPU that is there for a quarter of an hour is asked: two calls, back to back on one machine.
#
#   scripts/benchmark_gpu.sh 1 OUT    the longest kernels of the step without any search; the step against PyTorch
#   scripts/benchmark_gpu.sh 2 OUT    correctness, depthwise convolutions, populations; then what still fits
#
# OUT is a folder for the JSON files. python3 needs jax for the GPU, flax, optax, orbax-checkpoint, torch and timm.
# Where .whl holds wheels, they are unpacked into a folder of their own and take part. PYTHON and MINUTES may name
# another interpreter and another limit for a call.
#
# Nearly all of the time goes to XLA's search for the fastest kernels: with its own settings it had not ended for the
# step after 290 s on an H100 with 16 cores; without any search, two cores compile it in 40 s. So the first figures are
# those without a search, and after them the search that compares two compilers for every fusion is off (where it had
# ended, it took the one that is used without it in 94 of 100 cases), and products are cuBLAS's. XLA_FLAGS may say
# otherwise: with XLA_FLAGS= a call has XLA's own settings. Never dump XLA's modules here: each candidate of the search
# is one.
#
# How many seconds each section may take is in fairkd_jax/benchmarks/suite.py. A section that would not end in time is
# left out, and the JSON file is written after each one.
set -euo pipefail
cd "$(dirname "$0")/.."
call=${1:?which call, 1 or 2}; out=${2:?a folder for the results}; python=${PYTHON:-python3}
[[ $call == [12] ]] || { echo "benchmark_gpu.sh: the call is 1 or 2, not $call" >&2; exit 2; }
scratch=${TMPDIR:-/tmp}/fairkd_gpu; mkdir -p "$out" "$scratch"
if compgen -G '.whl/*.whl' > /dev/null && [ ! -e "$scratch/site.done" ]; then
  "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$scratch/site" .whl/*.whl
  touch "$scratch/site.done"
fi
# The package need not be installed. Both calls share what is compiled; PyTorch needs its half of the memory.
export PYTHONPATH=$PWD:$scratch/site PYTHONUNBUFFERED=1 JAX_COMPILATION_CACHE_DIR=$scratch/compiled
export XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.45}
quick="--xla_gpu_experimental_enable_fusion_autotuner=false --xla_gpu_enable_triton_gemm=false"
flags=${XLA_FLAGS-$quick}
# suite NAME FLAGS SECTIONS MINUTES OPTIONS...
suite() {
  XLA_FLAGS=$2 "$python" scripts/benchmark.py suite --sections "$3" --minutes "$4" --json "$out/suite-$1.json" "${@:5}"
}
against=(--rounds 7 --against torch --python "${TORCH_PYTHON:-$python}")
case $call in
  1)
    suite 1-unsearched "$quick --xla_gpu_autotune_level=0" kernels 1.5 --rounds 3 || true
    suite 1 "$flags" step,kernels "${MINUTES:-5}" "${against[@]}"
    ;;
  2)
    suite 2 "$flags" correctness,depthwise,population,small_population,memory,data,curves,best_batch \
      "${MINUTES:-5.5}" "${against[@]}"
    ;;
esac
