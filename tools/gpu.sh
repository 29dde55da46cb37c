#!/usr/bin/env bash
# make gpu STAGE=build|test|sanitize|micro|bench|all, for a machine with an NVIDIA GPU: uses the interpreter given and
# the torch it has, and no network.
set -euo pipefail

python=$1 stage=$2

die() { echo "make gpu: $*" >&2; exit 1; }

case $stage in build | test | sanitize | micro | bench | all) ;; *) die "no stage '$stage'" ;; esac
command -v nvidia-smi >/dev/null && nvidia-smi -L | grep -q GPU || die "no NVIDIA GPU on this machine; nothing was run"
"$python" -c 'import torch' || die "$python has no torch; choose another with PYTHON="

if [[ $stage == build || $stage == all ]]; then
  mkdir -p build
  FUSEGEN_CUDA=auto "$python" -m pip install --no-build-isolation --no-deps -v . >build/gpu.log 2>&1 ||
    { tail -n 60 build/gpu.log; die "the build failed (build/gpu.log)"; }
  sed -n 's/^ *-- fusegen/  fusegen/p' build/gpu.log
fi
root=$PWD
cd /  # the installed package, not the checkout
"$python" -c 'import fusegen; assert fusegen._C.build_info()["cuda_archs"]' 2>/dev/null ||
  die "the fusegen that is installed has no CUDA kernels, so there is nothing to $stage on a GPU: make gpu STAGE=build"
tests=("$python" -m pytest -q -p no:cacheprovider -m gpu --rootdir "$root" -c "$root/pyproject.toml" "$root/tests/test_gpu.py")

if [[ $stage == test || $stage == all ]]; then
  "${tests[@]}"
fi
if [[ $stage == sanitize || $stage == all ]]; then
  command -v compute-sanitizer >/dev/null || die "compute-sanitizer is not on PATH; nothing was checked"
  for tool in memcheck racecheck synccheck; do
    echo "compute-sanitizer $tool"
    FUSEGEN_REPETITIONS=1 compute-sanitizer --tool "$tool" --error-exitcode 1 "${tests[@]}" -k "cells or lengths or bit_equal"
  done
fi
if [[ $stage == micro || $stage == bench ]]; then
  die "there are no benchmarks of CUDA kernels yet"
fi
