#!/usr/bin/env bash
# The table on one GPU: a model of 0.5 billion weights from a config, bfloat16 products, torch.compile off and on, and TRL with
# FlashAttention too where flash_attn is installed. Creates .venv when it is not there. 40 GB of GPU memory are enough.
#   benchmarks/gpu.sh [FOLDER]             writes FOLDER/{eager,compiled,flash}/benchmarks.md (default benchmarks/results/gpu)
#   DEVICE=cpu benchmarks/gpu.sh FOLDER    the same program at toy size, to try it
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(realpath -m "${1:-benchmarks/results/gpu}")
python=${PYTHON:-.venv/bin/python}

if [ "${DEVICE:-cuda}" = cpu ]; then
  size=(--device cpu --toy --threads 1 --repeats 1 --budget 1 --only dpo-short)
elif nvidia-smi -L >/dev/null 2>&1; then
  size=(--device cuda --model 0.5b --batch "${BATCH:-4}")
else
  echo "benchmarks/gpu.sh: no NVIDIA GPU here (nvidia-smi lists none)" >&2
  echo "hint: run it on a machine with one, or try it with DEVICE=cpu; make bench is the benchmark for CPUs" >&2
  exit 2
fi

[ -x "$python" ] && "$python" -c "import guerdon, trl" 2>/dev/null || make .venv/.bench
run() { "$python" -m benchmarks.run "${size[@]}" --results "$out/$1/measured" --out "$out/$1" "${@:2}"; }

run eager
[ "${COMPILE:-1}" = 0 ] || run compiled --compile
if "$python" -c "import flash_attn" 2>/dev/null; then run flash --trl-attention flash_attention_2; fi
