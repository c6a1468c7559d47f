#!/usr/bin/env bash
# Everything that needs a GPU, in one command, on a machine with a CUDA PyTorch (2.11 or newer) and nvcc; no Node needed:
# builds the C++ programs, checks every kernel, the whole fusion and decode against the CPU, and prints the bench's rows.
#   bench/device.sh [--python PYTHON] [--build FOLDER] [--out FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
python=python3 build=build/device out=
while [[ $# -gt 0 ]]; do
  case $1 in
    --python) python=$2; shift 2 ;;
    --build) build=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    *) echo "unknown argument $1" >&2; exit 2 ;;
  esac
done
root=$("$python" -c 'import os, torch; assert torch.cuda.is_available(), "PyTorch sees no GPU"; print(os.path.dirname(torch.__file__))')
arch=$("$python" -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())')
"$python" -c 'import torch; print("PyTorch", torch.__version__, "on", torch.cuda.get_device_name())'
mkdir -p "$(dirname "$build")"
generator=()
command -v ninja >/dev/null && generator=(-G Ninja)
cmake -S . -B "$build" "${generator[@]}" -DTORCH_ROOT="$root" -DC2C_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES="$arch" \
  -DC2C_ADDON=OFF -DC2C_TESTS=ON -DC2C_BENCH=ON >"$build.log" 2>&1 || { cat "$build.log"; exit 1; }
targets=()
for source in test/cpp/cuda_*test.cpp; do targets+=("$(basename "$source" .cpp)"); done
for source in bench/cpp/cuda*.cpp; do targets+=("bench_$(basename "$source" .cpp)"); done
cmake --build "$build" -j "$(nproc)" --target "${targets[@]}" >>"$build.log" 2>&1 || { grep -E -A5 'error|FAILED' "$build.log" | tail -60; exit 1; }
failed=0
for target in "${targets[@]}"; do
  [[ $target == bench_* ]] && continue
  echo "── $target"
  "$build/tests/$target" || failed=1
done
for target in "${targets[@]}"; do
  [[ $target == bench_* ]] || continue
  echo "── $target"
  if [[ -n $out ]]; then
    "$build/bench/${target#bench_}" | tee "$out/${target#bench_}.jsonl" || failed=1
  else
    "$build/bench/${target#bench_}" || failed=1
  fi
done
exit $failed
