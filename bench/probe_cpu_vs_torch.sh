#!/bin/sh
# Runs probe_cpu and torch alternately and prints, for each case, both best times and the ratio (above 1: we are
# faster).
#
#   bench/probe_cpu_vs_torch.sh PROBE_CPU [PYTHON] [ROUNDS] [options of both probes...]
#
# PROBE_CPU is the built program, PYTHON an interpreter that has torch (default python3), ROUNDS how often each is run
# (default 3; the best of all rounds counts).
set -eu
probe=${1:?"usage: probe_cpu_vs_torch.sh PROBE_CPU [PYTHON] [ROUNDS] [options]"}
python=${2:-python3}
rounds=${3:-3}
[ $# -gt 3 ] && shift 3 || shift $#
here=$(dirname "$0")
results=$(mktemp -d)
trap 'rm -r "$results"' EXIT
for round in $(seq "$rounds"); do
  "$probe" "$@" >>"$results/caravan"
  "$python" "$here/probe_torch.py" "$@" >>"$results/torch"
done
grep -m1 'model name' /proc/cpuinfo | sed 's/.*: //'
awk -F'\t' '
  NR == FNR { if (!($1 in theirs) || $2 < theirs[$1]) theirs[$1] = $2; next }
  { if (!($1 in ours)) order[++cases] = $1
    if (!($1 in ours) || $2 < ours[$1]) { ours[$1] = $2; rate[$1] = $3 } }
  END {
    printf "%-34s %12s %12s %10s %8s\n", "case", "caravan ms", "torch ms", "G.../s", "ratio"
    for (i = 1; i <= cases; ++i) {
      c = order[i]
      printf "%-34s %12.3f %12.3f %10.1f %8.2f\n", c, ours[c] * 1e3, theirs[c] * 1e3, rate[c], theirs[c] / ours[c]
    }
  }' "$results/torch" "$results/caravan"
