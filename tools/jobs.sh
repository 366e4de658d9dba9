# Sourced by tools/test: several jobs at a time, each with its output in one piece, all of them ended when the script ends.
# shellcheck shell=bash

most_jobs=$(nproc)
[ "$most_jobs" -le 4 ] || most_jobs=4
job_logs=$(mktemp -d)
declare -A job_names=() job_starts=()
failed=()
# Each job in a process group of its own: it can be ended whole, and Ctrl-C is not ignored in what it tests.
set -m

end_jobs() {
  local pid
  for pid in "${!job_names[@]}"; do kill -TERM -- "-$pid" 2>/dev/null || true; done
  rm -rf "$job_logs"
}
trap end_jobs EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# run NAME COMMAND...: starts the job as soon as there is room. A failure does not keep the others from running.
run() {
  while [ ${#job_names[@]} -ge "$most_jobs" ]; do wait_for_one; done
  local name=$1
  shift
  "$@" >"$job_logs/$name" 2>&1 </dev/null &
  job_names[$!]=$name job_starts[$!]=$SECONDS
}

wait_for_one() {
  local pid status=0 name
  wait -n -p pid "${!job_names[@]}" || status=$?
  name=${job_names[$pid]}
  printf '\n== %s (%d s)\n' "$name" $((SECONDS - job_starts[$pid]))
  cat "$job_logs/$name"
  [ $status -eq 0 ] || failed+=("$name")
  unset "job_names[$pid]" "job_starts[$pid]"
}

wait_for_all() {
  while [ ${#job_names[@]} -gt 0 ]; do wait_for_one; done
}
