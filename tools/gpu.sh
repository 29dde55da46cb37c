#!/usr/bin/env bash
# make gpu STAGE=..., for a machine with an NVIDIA GPU: uses the interpreter given and the torch it has, and no network.
#
#   build      the package for this GPU, into the interpreter
#   test       tests/gpu/
#   sanitize   its smallest cases under compute-sanitizer
#   micro      what the chip does by itself (benchmarks/gpu/micro.py)
#   bench-quick      24 layer cases beside cuDNN
#   bench-1 ... -4   the whole grid of layers, a quarter each
#   bench-5          cells
#   bench-6          ragged batches, errors against float64
#   bench-7          the discriminator step of a GAN
#   bench      bench-1 to bench-7
#   worst      what to tune next, from the results; profiled where Nsight Compute is there (build/ncu)
#   all        build, test, sanitize, micro, bench
#
# Each but bench and all takes at most 8 minutes. Results go to benchmarks/results/; a short table comes last.
set -euo pipefail

python=$1 stage=$2
bench_stages=(bench-1 bench-2 bench-3 bench-4 bench-5 bench-6 bench-7)

die() { echo "make gpu: $*" >&2; exit 1; }

case $stage in
  all) stages=(build test sanitize micro "${bench_stages[@]}") ;;
  bench) stages=("${bench_stages[@]}") ;;
  build | test | sanitize | micro | worst | bench-quick | bench-[1-7]) stages=("$stage") ;;
  *) die "no stage '$stage': build, test, sanitize, micro, bench-quick, bench-1 to bench-7, bench, worst or all" ;;
esac
command -v nvidia-smi >/dev/null && nvidia-smi -L | grep -q GPU || die "no NVIDIA GPU on this machine; nothing was run"
python=$("$python" -c 'import sys; print(sys.executable)') || die "$1 does not run; choose another with PYTHON="
"$python" -c 'import torch' || die "$python has no torch; choose another with PYTHON="
root=$PWD
summary=()

build() {
  mkdir -p build
  FUSEGEN_CUDA=auto "$python" -m pip install --no-build-isolation --no-deps -v . >build/gpu.log 2>&1 ||
    { tail -n 60 build/gpu.log; return 1; }
  sed -n 's/^ *-- fusegen/  fusegen/p' build/gpu.log
}

# The package that is installed, not the checkout: tests and benchmarks start in another folder.
tests() { # COMMAND-IN-FRONT... -- PYTEST-ARGUMENTS...
  local front=()
  while [[ $1 != -- ]]; do front+=("$1"); shift; done
  shift
  (cd / && FUSEGEN_TEST_THREADS=$(nproc) "${front[@]}" "$python" -m pytest -q -p no:cacheprovider -m gpu --rootdir "$root" \
    -c "$root/pyproject.toml" "$root/tests/gpu" "$@")
}
program() { (cd / && PYTHONPATH=$root/benchmarks "$python" -m "$@"); } # a module of benchmarks/
bench() { (cd / && "$python" "$root/benchmarks/run.py" "$@" --device cuda); }

# Only our kernels are watched, where this version of the tool can choose: torch's are many, and theirs to check.
sanitize() {
  command -v compute-sanitizer >/dev/null || { echo "compute-sanitizer is not on PATH; nothing was checked"; return 1; }
  local tool log ok=0 found only
  for only in "--kernel-regex kns=fusegen" "--kernel-name kernel_substring=fusegen" ""; do
    compute-sanitizer $only "$python" -c '' >/dev/null 2>&1 && break
  done
  for tool in memcheck racecheck synccheck; do
    log=build/sanitize-$tool.log
    mkdir -p build
    echo "compute-sanitizer $tool ($log)"
    FUSEGEN_PATIENCE=0 FUSEGEN_REPETITIONS=1 tests timeout 150 compute-sanitizer --tool "$tool" $only \
      --target-processes all --error-exitcode 9 -- -x -k "(test_smallest or test_cells) and not test_normalised" >"$log" 2>&1 || true
    found=$(sed -nE 's/^=+ (ERROR|RACECHECK) SUMMARY: ([0-9]+) .*/\2/p' "$log" | tail -n 1)
    if [[ -z $found ]]; then
      summary+=("sanitize $tool: no verdict here: $(tail -n 1 "$log")")
    elif [[ $found != 0 ]] || ! grep -qE '^[0-9]+ passed' "$log"; then
      summary+=("sanitize $tool: FAILED, $found reported: $log")
      grep -E '^=+ |^FAILED' "$log" | head -n 20
      ok=1
    else
      summary+=("sanitize $tool: clean, $(grep -E '^[0-9]+ passed' "$log")")
    fi
  done
  return $ok
}

run() {
  case $1 in
    build) build ;;
    test) tests -- ;;
    sanitize) sanitize ;;
    micro) program gpu.micro ;;
    worst) program gpu.worst $(command -v ncu >/dev/null && echo --ncu "$root/build/ncu") ;;
    bench-quick) bench rnn --quick --save --minutes 5 ;;
    bench-[1-4]) bench rnn --part "${1#bench-}/4" --minutes 6 ;;
    bench-5) bench cells --minutes 6 ;;
    bench-6) bench ragged accuracy --minutes 4 ;;
    bench-7) bench gan --minutes 6 ;;
  esac
}

failed=0
for stage in "${stages[@]}"; do
  printf '\n== %s\n' "$stage"
  start=$SECONDS
  [[ $stage == build ]] || (cd / && "$python" -c 'import fusegen; assert fusegen._C.build_info()["cuda_archs"]') 2>/dev/null ||
    die "the fusegen that is installed has no CUDA kernels, so there is nothing to run on a GPU: make gpu STAGE=build"
  ok=passed
  run "$stage" || { ok=FAILED; failed=1; }
  summary+=("$stage: $ok, $((SECONDS - start)) s")
  [[ $stage != build || $ok == passed ]] || die "the build failed (build/gpu.log)"
done

if [[ "${stages[*]}" == *bench-* ]]; then
  (cd / && "$python" "$root/benchmarks/report.py" --show) || true
fi
printf '\n'
printf '%s\n' "${summary[@]}"
exit $failed
