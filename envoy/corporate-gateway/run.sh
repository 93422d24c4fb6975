#!/usr/bin/env bash
# Runs this deployment on one machine: what `make gateway` starts once all is installed and built.

# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/serve.sh"
. "$ROOT/envoy/corporate-gateway/demo.sh"

VERB=gateway
DEPLOYMENT=corporate-gateway
FILES=$STATE_DIR/gateway
PORT=${PORT:-8443}

prepare() {
  make_certificate
  make_users
  export NIXGATE_HTPASSWD=${NIXGATE_HTPASSWD:-$FILES/htpasswd} NIXGATE_GROUPS=${NIXGATE_GROUPS:-$FILES/groups}
}

render_envoy() {
  render filter.yaml
  render certificate.yaml /etc/nixgate/tls "$FILES/tls"
  render envoy.yaml 'port_value: 8443\b' "port_value: $PORT" \
    'port_value: 8081\b' "port_value: $BUILDER_PORT" 'path: /run/nixgate/envoy-admin.sock\b' "path: $ADMIN_SOCKET" \
    'https://127.0.0.1:8443/' "https://127.0.0.1:$PORT/" \
    envoy/corporate-gateway/filter.yaml "$FILES/filter.yaml" \
    envoy/corporate-gateway/certificate.yaml "$FILES/certificate.yaml"
}

# Logs in as clients do: sent where the challenge says, then back with what was got there. Envoy
# fetches the builder's keys again each second until it has them.
registry_answers() {
  python3 - "https://127.0.0.1:$PORT" "$FILES" <<'END'
import base64, json, pathlib, re, ssl, sys, time, urllib.error, urllib.request

registry, files = sys.argv[1], pathlib.Path(sys.argv[2])
context = ssl.create_default_context(cafile=files / "ca/ca.crt")
opener = urllib.request.build_opener(
    urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
)

def ask(url, authorization=None):
    headers = {"Authorization": authorization} if authorization else {}
    try:
        answer = opener.open(urllib.request.Request(url, headers=headers), timeout=10)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        return answer.status, answer.headers, answer.read()

status, headers, _ = ask(registry + "/v2/")
realm = re.match('Bearer realm="([^"]*)"', headers.get("www-authenticate", ""))
if status != 401 or not realm:
    sys.exit(f"/v2/ answered {status}, and not where to log in")
password = (files / "alice.password").read_text()
basic = "Basic " + base64.b64encode(f"alice:{password}".encode()).decode()
status, _, body = ask(realm[1], basic)
if status == 401:
    sys.exit(0)  # The users are other ones than those that were made here.
token = json.loads(body)["token"]
for _ in range(30):
    if ask(registry + "/v2/", "Bearer " + token)[0] == 200:
        sys.exit(0)
    time.sleep(1)
sys.exit("a token is refused")
END
}

SUSPECT="Envoy could not load the filter with envoy/corporate-gateway/filter.yaml, or does not take the builder's tokens"

ready_line() {
  echo "docker login --username alice --password-stdin 127.0.0.1:$PORT <$FILES/alice.password && docker pull 127.0.0.1:$PORT/shell/git"
}

serve
