#!/usr/bin/env bash
# Makes the secrets of compose.yaml, each once: cluster/docker/secrets/, which git and the image builder ignore.
# The folder is closed (0700); the files are readable, since containers run under other user ids.
set -euo pipefail
cd "$(dirname "$0")"
umask 077
mkdir -p secrets
for name in ray_token postgres_password mlflow_admin_password mlflow_flask_key s3_access_key s3_secret_key; do
    if [[ ! -s secrets/$name ]]; then
        python3 -c 'import secrets; print(secrets.token_hex(32), end="")' >"secrets/$name"
        chmod 0444 "secrets/$name"
    fi
done
echo "secrets are in $PWD/secrets"
