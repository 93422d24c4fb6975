#!/usr/bin/env bash
# Runs this deployment on one machine: what `make run` starts once all is installed and built.

# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/serve.sh"

VERB=run
DEPLOYMENT=standalone
FILES=$STATE_DIR
PORT=${PORT:-8080}

prepare() { :; }

# Both files go to the state folder, so that a change to the filter's one, which Envoy watches, is
# none of the repository's.
render_envoy() {
  render filter.yaml
  render envoy.yaml 'port_value: 8080\b' "port_value: $PORT" \
    'port_value: 8081\b' "port_value: $BUILDER_PORT" 'path: /run/nixgate/envoy-admin.sock\b' "path: $ADMIN_SOCKET" \
    envoy/standalone/filter.yaml "$FILES/filter.yaml"
  # The route of the website.
  [[ -z ${WEB_DIR:-} ]] || sed -i 's/#| //' "$FILES/envoy.yaml"
}

registry_answers() { answers "$PORT" /v2/; }

SUSPECT="Envoy could not load the filter with envoy/standalone/filter.yaml"

ready_line() { echo "docker pull 127.0.0.1:$PORT/shell/git"; }

serve
