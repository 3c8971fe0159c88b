# shellcheck shell=bash
# Runs named stages one after another, tells each one's time, and goes on after a failure: one run tells all that is wrong.
# Sourced. A stage NAME is a function stage_NAME, run in a shell of its own, where the first failing command ends it.

passed=0
failed=()
times=()

# run_stage NAME
run_stage() {
  local name=$1 begin=$SECONDS outcome=passed
  printf '\n=== %s\n' "$name"
  # Not in a condition: there `set -e` would be off inside.
  set +e
  (
    set -e
    "stage_$name"
  ) </dev/null
  local status=$?
  set -e
  if [ $status -eq 0 ]; then
    passed=$((passed + 1))
  else
    outcome="FAILED ($status)"
    failed+=("$name")
  fi
  times+=("$(printf '%-10s %5d s  %s' "$name" $((SECONDS - begin)) "$outcome")")
  printf '=== %s: %s, %d s\n' "$name" "$outcome" $((SECONDS - begin))
}

# Prints the table and the closing line; its status tells whether all passed.
sum_up() {
  printf '\n'
  printf '%s\n' "${times[@]}"
  printf '%-10s %5d s\n' together "$SECONDS"
  [ ${#failed[@]} -eq 0 ] || printf 'failed: %s\n' "${failed[*]}"
  printf '\nstages: %d passed, %d failed\n' "$passed" ${#failed[@]}
  [ ${#failed[@]} -eq 0 ]
}
