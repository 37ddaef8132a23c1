#!/usr/bin/env bash
# torch.compile's cache on disk hands code made for AVX-512 to a machine with AVX2, and half of each tensor stays as it was.
#
# Versions   torch 2.13.0 (CPU), Linux on x86-64, gcc or clang; needs a processor with AVX-512, and ends with 2 without
# Expected   two nodes of a cluster share TORCHINDUCTOR_CACHE_DIR (a home folder, a volume): each gets code for its own
#            processor, since the loops that inductor writes have the width of its vectors.
# Seen       the key of a cached graph has no instruction set in it. A machine with AVX2 hits the entry of one with AVX-512,
#            builds its loops of 16 numbers with vectors of 8, and writes numbers 0 to 7 of every 16. No warning, no error.
#            With an empty cache the same machine is right. ATEN_CPU_CAPABILITY=avx2 stands for the second machine.
# For users  a resumed or distributed training on unlike CPU nodes learns half of its weights. Give each kind of processor a
#            cache of its own. persona compiles optimizer steps on a GPU only, and its numeric tests have a cache for each
#            instruction set.
set -euo pipefail
grep -qw avx512f /proc/cpuinfo && grep -qw avx512vl /proc/cpuinfo || { echo "this processor has no AVX-512: nothing to see"; exit 2; }
command -v g++ > /dev/null || command -v clang++ > /dev/null || { echo "inductor needs a C++ compiler"; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
install() { # uv where there is one: torch brings 3 GB
  if command -v uv > /dev/null; then uv pip install -q --python venv/bin/python "$@"; else venv/bin/pip install -q "$@"; fi
}
install torch==2.13.0 numpy==2.3.5 setuptools==80.9.0
cat > step.py <<'PYTHON'
import torch
from torch._dynamo.utils import counters

torch.set_num_threads(1)


def descend(weights, sign_of, rate):
    weights.sub_(sign_of.sign() * rate)


weights, ones = torch.zeros(36, 256), torch.ones(36, 256)
torch.compile(descend, dynamic=True)(weights, ones, torch.tensor(0.5))
moved = [str(place) for place in range(16) if bool((weights.flatten()[place::16] == -0.5).all())]
hit = counters["inductor"]["fxgraph_cache_hit"]
print(torch.backends.cpu.get_cpu_capability(), "cache hit" if hit else "cache miss", "moved of every 16:", " ".join(moved))
PYTHON
run() { # cache folder, capability
  TORCHINDUCTOR_CACHE_DIR="$work/$1" ATEN_CPU_CAPABILITY="$2" venv/bin/python step.py 2> errors.txt || { cat errors.txt; exit 1; }
}
venv/bin/python -c 'import torch; print("torch", torch.__version__)'
first=$(run shared avx512)
second=$(run shared avx2)
alone=$(run own avx2)
echo "$first"; echo "$second"; echo "$alone (a cache of its own)"
all="0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15"
[ "$first" = "AVX512 cache miss moved of every 16: $all" ] || { echo "changed: AVX-512 itself"; exit 1; }
[ "$second" = "AVX2 cache hit moved of every 16: 0 1 2 3 4 5 6 7" ] || { echo "changed: the cache tells them apart, or the code is right"; exit 1; }
[ "$alone" = "AVX2 cache miss moved of every 16: $all" ] || { echo "changed: AVX2 itself"; exit 1; }
