#!/usr/bin/env bash
# Run a command in an environment of the workflow's rules: tests/in_env.sh NAME COMMAND...
# Snakemake names an environment's folder by a hash, so it is asked where that is.
set -euo pipefail
cd "$(dirname "$0")/.."
file=envs/$1.yaml
shift
prefix=$(snakemake --configfile config/demo/config.yaml config/demo/five.yaml --sdm conda --cores 1 --list-conda-envs |
    awk -F '\t' -v file="$file" '$1 == file { print $3 }')
if [ ! -d "$prefix" ]; then
    echo "The environment of $file is not there: run 'make environments' first." >&2
    exit 1
fi
# Threads that wait by spinning slow down whatever runs beside the tests, and these with it.
export OMP_WAIT_POLICY=passive
PATH=$(realpath "$prefix")/bin:$PATH exec "$@"
