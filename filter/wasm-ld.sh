#!/bin/sh
# Links wasm as rustc would, but for the callbacks that the filter has no use for.
#
# Envoy calls every `proxy_on_*` that a module exports, for each request where it is about requests,
# and each such call costs it about a microsecond. The proxy-wasm SDK defines all two dozen of them,
# and rustc has the linker export whatever is defined (`--export NAME`). Without that the linker
# drops the callback and the SDK's dispatching behind it.
#
# Everything else stays as it is: other names, and other programs for wasm, such as the core's tests.
# rustc puts the toolchain's own rust-lld on the path.
set -eu

is_needed() {
  case $1 in
  proxy_on_memory_allocate) ;;
  proxy_on_vm_start | proxy_on_configure) ;;
  proxy_on_tick | proxy_on_queue_ready | proxy_on_http_call_response) ;;
  proxy_on_context_create | proxy_on_request_headers | proxy_on_delete) ;;
  proxy_on_*) return 1 ;;
  esac
}

# Each argument is taken from the front, and put back at the end if it stays.
previous=
for argument do
  shift
  if [ "$previous" = --export ]; then
    if is_needed "$argument"; then set -- "$@" --export "$argument"; fi
  elif [ "$argument" != --export ]; then
    set -- "$@" "$argument"
  fi
  previous=$argument
done
exec rust-lld "$@"
