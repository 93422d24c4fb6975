#!/usr/bin/env bash
# Runs each fuzz target for some seconds (FUZZ_SECONDS, 5), on the stable toolchain.
#
#   targets/<target>.rs    what must hold for any input
#   corpus/<target>/       input to begin with, one of each kind
#   target/fuzz/           what a run finds: inputs that reach new code, and those that break it
#
# cargo-fuzz would do the same with a nightly compiler, for the sake of sanitizers. The core has no
# unsafe code for those to look at, and coverage, which libFuzzer needs, is in every LLVM.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

target=$(rustc -vV | sed -n 's/^host: //p')
folder=${CARGO_TARGET_DIR:-target}/fuzz
flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
  -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions=on"

# With --target, build scripts are left alone: they have no fuzzer to link with.
RUSTFLAGS=$(printf '%s ' $flags) cargo build --locked --quiet --release --package nixgate-fuzz \
  --target "$target" --target-dir "$folder"

fuzz() {
  local name=$1 found=$2/found/$1 log=$2/$1.log
  mkdir -p "$found"
  # What is found goes to the first folder; an input that breaks something stays beside it.
  "$2/$3/release/fuzz-$name" "$found" "tests/fuzz/corpus/$name" \
    -timeout=60 -max_total_time="${FUZZ_SECONDS:-5}" -artifact_prefix="$2/$name-" 2>"$log" || {
    cat "$log" >&2
    printf '%s\n' "nixgate: the fuzz target $name fails" \
      "   what to do: correct it, and keep the input named above (Test unit written to …) as a test beside the code" >&2
    return 1
  }
  printf 'fuzz %s: %s\n' "$name" "$(tail -n 1 "$log")"
}
export -f fuzz

for file in tests/fuzz/targets/*.rs; do basename "$file" .rs; done |
  xargs --max-procs="$(nproc)" -I {} bash -c 'fuzz "$@"' fuzz {} "$folder" "$target"
