#!/usr/bin/env bash
# Run the studies of ../shared/cases that failed once, all or those whose numbers are given, and print
# what each came to below what its user expects: tests/cases.sh [NUMBER...]
set -u
cd "$(dirname "$0")/.."
REPO=$PWD
export REPO
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# They write beside themselves.
cp -r ../shared/cases/. "$folder"
for case in "$folder"/[0-9]*/; do
    name=$(basename "$case")
    [ $# -eq 0 ] || [[ " $* " == *" ${name%%_*} "* ]] || continue
    echo "=== $name"
    grep -h '^expected' "$case/expected.txt" 2>/dev/null
    QA_STUDY=$case/study bash "$case/run.sh" 2>&1
done
