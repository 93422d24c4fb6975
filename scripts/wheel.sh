# Programs from PyPI. To be sourced.
# shellcheck shell=bash

# install_wheel FOLDER NAME ADVICE: installs what scripts/NAME.txt names into a virtual environment of its own.
# The hashes there keep an index or a mirror from sending another file than the tested one.
install_wheel() {
  local folder=$1 name=$2 advice=$3 package
  package=$(sed -nE 's/^([a-z-]+==[0-9.]+).*/\1/p' "$ROOT/scripts/$name.txt")
  rm -rf "$folder"
  python3 -m venv "$folder" ||
    fail "python3 cannot create a virtual environment" "install python3-venv (as root: apt-get install python3-venv)"
  "$folder/bin/pip" install --quiet --no-cache-dir --disable-pip-version-check --no-deps --only-binary :all: \
    --require-hashes --requirement "$ROOT/scripts/$name.txt" ||
    fail "pip could not install $package" "$advice"
}
