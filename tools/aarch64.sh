#!/usr/bin/env bash
# tools/aarch64.sh SHAPES...: the engine's tests (tests/engine) on 64-bit ARM, built by the cross compiler of
# cmake/aarch64-linux-gnu.cmake in build/aarch64 and run by qemu-user. A shape is "I H B T". cmake and ninja are on the PATH.
#
# Right results are all that this can show: an emulator's time tells nothing of a processor's. Exit status 77: a tool is
# missing, which is said.
set -euo pipefail
cd "$(dirname "$0")/.."

compiler=aarch64-linux-gnu-g++ emulator=qemu-aarch64
missing() { echo "no $1 on this machine: the engine is not run on 64-bit ARM (Debian: apt install $2)"; exit 77; }
command -v "$compiler" >/dev/null || missing "$compiler" g++-aarch64-linux-gnu
command -v "$emulator" >/dev/null || missing "$emulator" qemu-user

build=build/aarch64 log=build/aarch64/build.log
mkdir -p "$build"
cmake -S . -B "$build" -G Ninja -DCMAKE_TOOLCHAIN_FILE="$PWD/cmake/aarch64-linux-gnu.cmake" -DFUSEGEN_CUDA=off \
  -DFUSEGEN_PYTHON=OFF -DFUSEGEN_ENGINE_TESTS=ON >"$log" 2>&1 && cmake --build "$build" --target engine_test >>"$log" 2>&1 ||
  { tail -n 60 "$log"; exit 1; }
# Threads that wait leave the cores to those that work.
printf '%s\n' "$@" | OMP_WAIT_POLICY=passive "$emulator" -L /usr/aarch64-linux-gnu "$build/engine_test"
