#!/usr/bin/env bash
# Measures on a GPU that is lent for a quarter of an hour, in two calls, one after the other on the same machine.
#
#   scripts/benchmark_gpu.sh 1 OUT    the longest kernels of the step without any search; the step against PyTorch
#   scripts/benchmark_gpu.sh 2 OUT    correctness, depthwise convolutions, populations; then the sections that still fit
#
# OUT is a folder for the JSON files. python3 needs jax for the GPU, flax, optax, orbax-checkpoint, torch and timm. If
# .whl holds wheels, they are unpacked into a separate folder and used. PYTHON and MINUTES set another interpreter and
# another time limit for a call.
#
# XLA's search for the fastest kernels takes nearly all of the time. With XLA's own settings, the search for the step
# had not ended after 290 s on an H100 with 16 cores. Without any search, two cores compile the step in 40 s. So the
# first figures are figures without a search. After them, the search that compares two compilers for every fusion is
# off. (Where this search had ended, it chose the default compiler in 94 of 100 cases.) Matrix products use cuBLAS.
# XLA_FLAGS overrides these settings: with XLA_FLAGS= a call has XLA's own settings. Never dump XLA's modules here,
# because each candidate of the search is a module.
#
# fairkd_jax/benchmarks/sections.py has the estimated seconds of each section. A section is left out if its estimate is
# longer than the time left. The JSON file is written after each section.
set -euo pipefail
cd "$(dirname "$0")/.."
call=${1:?name the call, 1 or 2}; out=${2:?name a folder for the results}; python=${PYTHON:-python3}
[[ $call == [12] ]] || { echo "benchmark_gpu.sh: the call must be 1 or 2, not $call" >&2; exit 2; }
scratch=${TMPDIR:-/tmp}/fairkd_gpu; mkdir -p "$out" "$scratch"
if compgen -G '.whl/*.whl' > /dev/null && [ ! -e "$scratch/site.done" ]; then
  "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$scratch/site" .whl/*.whl
  touch "$scratch/site.done"
fi
# The package is used from this folder. Both calls share the compilation cache; PyTorch needs half of the memory.
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
