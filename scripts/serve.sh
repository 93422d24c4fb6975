# Runs a builder and an Envoy in front of it in the foreground. To be sourced by the run.sh of a
# deployment, which then calls `serve`.
#
#   make ── setpriv ── run.sh ─┬─ setpriv ── nixgate serve ── nix …     a process group
#                              └─ setpriv ── envoy                      a process group
#
# It ends on Ctrl-C, on SIGTERM or when either half ends, and then stops the rest: each half has its own
# process group, so that the processes of Nix end with the builder. If this script is killed, the kernel
# sends both halves SIGTERM (pdeathsig).
#
# The builder logs to the terminal. Envoy's log and access log go to files in FILES with a limited size
# (keep_log.py), which others can't read.
#
# The deployment's script sets, before:
#
#   VERB               the Makefile's verb for it
#   DEPLOYMENT         its folder below envoy/
#   FILES              the folder for its configuration and logs, in STATE_DIR
#   PORT               the port for clients
#   prepare            further preparation, such as variables of the builder
#   render_envoy       Envoy's configuration for this run, into FILES
#   registry_answers   whether the registry serves, once Envoy listens
#   SUSPECT            the likely cause if it does not
#   ready_line         the user's next command
#
# shellcheck shell=bash

# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
. "$ROOT/scripts/envoy.sh"
. "$ROOT/scripts/nix.sh"

BUILDER_PORT=${BUILDER_PORT:-8081}
# The builder finishes its answers in this time, then it is killed.
STOP_SECONDS=10

check_ports() {
  local variable
  for variable in PORT BUILDER_PORT; do
    # Envoy listens with SO_REUSEPORT and would share a port with another Envoy without a word.
    python3 -c '
import socket, sys
probe = socket.socket()
probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
probe.bind(("127.0.0.1", int(sys.argv[1])))
' "${!variable}" 2>/dev/null ||
      fail "port ${!variable} ($variable) is taken or not a port" \
        "end what listens there (ss -ltnp shows it), or choose another, as in: make $VERB $variable=<port>"
  done
}

# Envoy's admin page: only users who can write to this folder can open it.
check_admin_socket() {
  ADMIN_SOCKET=${ADMIN_SOCKET:-$FILES/envoy-admin.sock}
  # The system's limit (unix(7)).
  ((${#ADMIN_SOCKET} <= 107)) ||
    fail "the path of Envoy's admin socket has more than 107 characters: $ADMIN_SOCKET" \
      "choose a shorter one, as in: make $VERB ADMIN_SOCKET=/run/nixgate-admin.sock"
}

# The secret between the halves, made once for a state folder and readable by its owner only.
read_token() {
  local file=$STATE_DIR/token
  if [[ ! -s $file ]]; then
    (umask 077 && head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' >"$file")
  fi
  cat "$file"
}

# render FILE FROM TO...: copies a file of the deployment to FILES, with the path of the filter and with
# each match of the regular expression FROM replaced by TO.
render() {
  local file=$1 marks=(-e '') values=(-e '') number=0
  shift
  # In two steps, so that PORT=8081 BUILDER_PORT=8080 works too.
  while (($# > 0)); do
    marks+=(-e "s|$1|@$number@|")
    values+=(-e "s|@$number@|$2|")
    number=$((number + 1))
    shift 2
  done
  with_module "envoy/$DEPLOYMENT/$file" | sed "${marks[@]}" "${values[@]}" >"$FILES/$file"
}

choose_package_set() {
  local embedded=false options
  if [[ -n ${NIXERY_CHANNEL:-} ]]; then
    package_set="nixpkgs channel $NIXERY_CHANNEL"
  elif [[ -n ${NIXERY_PKGS_REPO:-} ]]; then
    package_set="git repository $NIXERY_PKGS_REPO"
  elif [[ -n ${NIXERY_PKGS_PATH:-} ]]; then
    package_set="path $NIXERY_PKGS_PATH"
  elif [[ -n ${NIXGATE_FLAKE:-} ]]; then
    package_set="flake $NIXGATE_FLAKE"
  else
    embedded=true
    scripts/package-set.sh amd64 arm64
    export NIXERY_PKGS_PATH=$STATE_DIR/debian
    package_set="the embedded demo, a few dozen of Debian's packages under nixpkgs' names; for all of nixpkgs: NIXERY_CHANNEL=nixos-unstable make $VERB"
  fi
  [[ $embedded == true ]] || use_modern_nix
  # The given ones come after those that this machine needs, so that they win.
  options=$(nix_options "$embedded")
  options+=${options:+${NIXGATE_NIX_OPTIONS:+;}}${NIXGATE_NIX_OPTIONS:-}
  [[ -z $options ]] || export NIXGATE_NIX_OPTIONS=$options
  # Builds of the embedded set see folders of the machine.
  wrapper=()
  [[ $embedded == false ]] || mapfile -t wrapper < <(read_only_wrapper)
}

# answers PORT PATH: whether an HTTP server there says 200.
answers() {
  python3 -c '
import sys, urllib.request
urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"http://127.0.0.1:{sys.argv[1]}{sys.argv[2]}", timeout=2)
' "$1" "$2" 2>/dev/null
}

# Says why the builder can't build, if so. It still serves stored images.
say_if_unready() {
  local reason
  reason=$(python3 -c '
import json, sys, urllib.error, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
try:
    # It asks storage and Nix, and has limits of its own for both.
    opener.open(f"http://127.0.0.1:{sys.argv[1]}/readyz", timeout=30)
except urllib.error.HTTPError as error:
    print(json.load(error)["errors"][0]["message"])
' "$BUILDER_PORT" 2>/dev/null) || reason="/readyz does not answer"
  [[ -z $reason ]] || say "the builder serves stored images, but can't build: $reason"
}

# Whether Envoy says so on its admin page.
envoy_is_ready() {
  python3 -c '
import socket, sys
page = socket.socket(socket.AF_UNIX)
page.settimeout(2)
page.connect(sys.argv[1])
page.sendall(b"GET /ready HTTP/1.1\r\nHost: envoy\r\nConnection: close\r\n\r\n")
sys.exit(not page.makefile("rb").readline().startswith(b"HTTP/1.1 200"))
' "$ADMIN_SOCKET" 2>/dev/null
}

# wait_for NAME PID COMMAND...: waits until the command succeeds or the process ends. There is no timeout:
# a slow machine is no error, and Ctrl-C works.
wait_for() {
  local name=$1 pid=$2
  shift 2
  until "$@"; do
    kill -0 "$pid" 2>/dev/null || {
      stop
      fail "$name ended before it was ready" "its message is above (Envoy's: $FILES/envoy.log)"
    }
    sleep 0.1
  done
}

stop() {
  trap '' INT TERM
  local pid deadline=$((SECONDS + STOP_SECONDS))
  for pid in "${halves[@]}"; do
    kill -TERM -- "-$pid" 2>/dev/null || true
  done
  for pid in "${halves[@]}"; do
    # A group exists as long as one of its members does.
    while kill -0 -- "-$pid" 2>/dev/null; do
      if ((SECONDS >= deadline)); then
        kill -KILL -- "-$pid" 2>/dev/null || true
        break
      fi
      sleep 0.05
    done
    wait "$pid" 2>/dev/null || true
  done
}

# shellcheck disable=SC2317 # the trap below calls it
interrupted() {
  say "stopping"
  stop
  exit 0
}

# serve: starts both halves, reports when they are ready, and waits until one ends.
serve() {
  local builder envoy ended keep_log=$ROOT/scripts/keep_log.py
  cd "$ROOT"
  mkdir -p "$FILES"
  check_ports
  check_admin_socket
  choose_package_set
  prepare
  render_envoy
  NIXGATE_TOKEN=$(read_token)
  export NIXGATE_TOKEN

  halves=()
  trap interrupted INT TERM HUP
  # Job control gives each background command a process group of its own.
  set -m
  PORT=$BUILDER_PORT NIXGATE_HOST=127.0.0.1 NIXGATE_STATE_DIR=$STATE_DIR/builder \
    NIXERY_STORAGE_BACKEND=${NIXERY_STORAGE_BACKEND:-filesystem} STORAGE_PATH=${STORAGE_PATH:-$STATE_DIR/storage} \
    setpriv --pdeathsig TERM "${wrapper[@]}" "$TARGET_DIR/release/nixgate" serve </dev/null &
  builder=$!
  halves+=("$builder")
  setpriv --pdeathsig TERM "$(envoy_to_run)" -c "$FILES/envoy.yaml" \
    --disable-hot-restart --log-level warning --component-log-level wasm:info </dev/null \
    > >(exec "$keep_log" "$FILES/envoy-access.log") 2> >(exec "$keep_log" "$FILES/envoy.log") &
  envoy=$!
  halves+=("$envoy")
  set +m

  # Not /readyz, which is about building: with a full disk, stored images are still served.
  wait_for "the builder" "$builder" answers "$BUILDER_PORT" /healthz
  say_if_unready
  wait_for "Envoy" "$envoy" envoy_is_ready
  # If Envoy can't load the filter, it runs on and answers every request with 500.
  registry_answers || {
    stop
    fail "$SUSPECT" "correct the cause that its log names: $FILES/envoy.log"
  }
  say "ready: $(ready_line)   (package set: $package_set)"

  # Either half alone is no registry.
  wait -n "${halves[@]}" || true
  if kill -0 "$builder" 2>/dev/null; then
    ended="Envoy ended; its log is $FILES/envoy.log"
  else
    ended="the builder ended; its log is above"
  fi
  stop
  fail "$ended" "correct the cause that the log names, and start again"
}
