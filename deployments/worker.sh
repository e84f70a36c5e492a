#!/bin/sh
# A worker for servers that run elsewhere: its pool, the deployments, the automations, then the worker itself.
# PREFECT_API_URL, MLFLOW_TRACKING_URI and STILLHOUSE_HOME say where; WORKER_LIMIT how many runs at once.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
prefect --no-prompt work-pool create stillhouse --type process --base-job-template "$here/process-pool.json" --overwrite
prefect --no-prompt deploy --all --prefect-file "$here/prefect.yaml"
python -m flows.prepare_server
exec prefect worker start --pool stillhouse --type process --limit "${WORKER_LIMIT:-10}" --install-policy never
