#!/usr/bin/env python3
"""Gives a running Envoy another policy: puts it into the filter's configuration, which Envoy watches.

    apply_policy.py POLICY [--shadow NEXT] [--filter FILTER] [--admin SOCKET]

POLICY and NEXT are files as `nixgate policy` takes them: a policy, or an object with the key `policy`.
Without --shadow, no policy is on trial. The new configuration is written beside the old one and
renamed onto it, so that Envoy never finds half of it. What Envoy says of it is in its statistics: one
that the filter refuses changes nothing, is put back here, and is exit status 1.

The defaults are those of `make gateway`.
"""

import argparse
import http.client
import json
import os
import pathlib
import socket
import sys
import textwrap
import time

# How long Envoy may take to read the file; it takes milliseconds.
PATIENCE_SECONDS = 60
BLOCK = "value: |"


def policy_of(path: str) -> dict:
    document = json.loads(pathlib.Path(path).read_text())
    return document.get("policy", document)


def with_policies(text: str, policy: dict, shadow: dict | None) -> str:
    """The configuration with other policies; its other settings and its comments stay."""
    lines = text.splitlines(keepends=True)
    starts = [number for number, line in enumerate(lines) if line.strip() == BLOCK]
    if len(starts) != 1:
        sys.exit(f"the filter's configuration is to have one line `{BLOCK}`")
    start = starts[0] + 1
    outer = len(lines[start - 1]) - len(lines[start - 1].lstrip())
    end = start
    while end < len(lines) and (not lines[end].strip() or lines[end].startswith(" " * (outer + 1))):
        end += 1
    settings = json.loads(textwrap.dedent("".join(lines[start:end])))
    settings.pop("shadow", None)
    settings["policy"] = policy
    if shadow is not None:
        settings["shadow"] = shadow
    block = textwrap.indent(json.dumps(settings, indent=2), " " * (outer + 2)) + "\n"
    return "".join(lines[:start]) + block + "".join(lines[end:])


def put(path: pathlib.Path, text: str) -> None:
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    os.replace(new, path)


def deliveries(admin: str) -> dict[str, int]:
    """How many configurations of the filter Envoy has taken, and how many refused."""
    page = http.client.HTTPConnection("envoy", timeout=10)
    page.sock = socket.socket(socket.AF_UNIX)
    page.sock.settimeout(10)
    page.sock.connect(admin)
    page.request("GET", "/stats?filter=http_filter.nixgate.update")
    lines = page.getresponse().read().decode().splitlines()
    page.close()
    stats = {name.rpartition(".")[2]: value for name, _, value in (line.rpartition(": ") for line in lines)}
    return {name: int(stats[name]) for name in ("update_success", "update_rejected")}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("policy")
    parser.add_argument("--shadow", help="the policy on trial")
    parser.add_argument("--filter", default=".nixgate/gateway/filter.yaml", type=pathlib.Path)
    parser.add_argument("--admin", default=".nixgate/gateway/envoy-admin.sock")
    arguments = parser.parse_args()

    policy = policy_of(arguments.policy)
    shadow = policy_of(arguments.shadow) if arguments.shadow else None
    old = arguments.filter.read_text()
    new = with_policies(old, policy, shadow)
    before = deliveries(arguments.admin)
    if new == old:
        print(f"Envoy has the policy {policy.get('revision')} already")
        return
    put(arguments.filter, new)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (after := deliveries(arguments.admin)) == before:
        if time.monotonic() > deadline:
            sys.exit(f"Envoy has not read {arguments.filter}: is it the file that envoy.yaml names?")
        time.sleep(0.05)
    if after["update_success"] == before["update_success"]:
        put(arguments.filter, old)
        sys.exit("Envoy refuses the policy and keeps the one it has; its log says why")
    print(f"Envoy has taken the policy {policy.get('revision')}")


main()
