#!/usr/bin/env bash
# Resolves requirements/*.txt anew: names, versions and hashes, nothing else. Needs uv on the PATH.
set -euo pipefail
cd "$(dirname "$0")/.."
lock() { # lock OUTPUT SOURCE [ARGS...]
  uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
    --no-header --no-annotate --no-emit-package fairlead-agent --no-emit-package fairlead --quiet "${@:2}" --output-file "$1"
}
# What builds the two distributions themselves.
printf 'hatchling\neditables\n' | lock requirements/build.txt -
lock requirements/dev.txt pyproject.toml --extra dev
# One image, one file: each is a part of what is tested, never another version of it.
lock requirements/local.txt pyproject.toml --extra local --constraint requirements/dev.txt
lock requirements/control.txt pyproject.toml --extra kube --extra storage --constraint requirements/dev.txt
lock requirements/operator.txt pyproject.toml --extra operator --constraint requirements/dev.txt
lock requirements/gateway.txt pyproject.toml --extra gateway --constraint requirements/dev.txt
# The agent's image is small: without what only the command lines and the telemetry of libraries import.
without=()
for name in annotated-doc colorama markdown-it-py mdurl prompt-toolkit pygments rich shellingham typer wcwidth zstandard; do
  without+=(--no-emit-package "$name")
done
lock requirements/agent.txt agent_image/pyproject.toml --extra turns --constraint requirements/dev.txt "${without[@]}"
# What the benchmarks compare with: each in a virtual environment, or an image, of its own.
printf 'langgraph\nlanggraph-checkpoint-sqlite\n' | lock requirements/bench-langgraph.txt - --constraint requirements/dev.txt
printf 'langgraph\nlitellm\nkubernetes\n' | lock requirements/bench-image.txt - --constraint requirements/dev.txt
printf 'dbos\n' | lock requirements/bench-dbos.txt -
printf 'prefect\nfastapi==0.139.*\n' | lock requirements/bench-prefect.txt -
litellm=$(sed -n 's/^litellm==\([^ ;]*\).*/\1/p' requirements/dev.txt) # its proxy wants other versions of the rest
printf 'litellm[proxy]==%s\n' "$litellm" | lock requirements/bench-litellm.txt -
