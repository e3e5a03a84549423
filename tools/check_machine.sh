#!/bin/sh
# Is this machine fit for `make venv`?  Prints the Python to use on stdout, or says on stderr what to install and exits
# with 1.  Installs nothing and writes nothing.  PYTHON=... names an interpreter, CC and CXX the compilers.
set -u

oldest=11 # Python 3.11 is the oldest the code is written for,
newest=13 # 3.13 the newest for which rclpy exists as a wheel.

fail() {
    printf 'dsg_ros cannot be set up here: %s\n' "$1" >&2
    shift
    for line in "$@"; do printf '  %s\n' "$line" >&2; done
    exit 1
}

system=$(uname -s) machine=$(uname -m)
[ "$system $machine" = "Linux x86_64" ] || fail "ROS 2 comes as wheels for Linux x86_64 only, this is $system $machine." \
    "With a ROS 2 installation nothing of this is needed: see README, 'With ROS 2'."

# A name on the PATH is not enough (version managers put shims there that refuse to run): each candidate is run.
python='' tried='' incomplete=''
for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
    version=$("$candidate" -c 'import sys; print("%d %d" % sys.version_info[:2])' 2>/dev/null) || continue
    major=${version% *} minor=${version#* }
    if [ "$major" -ne 3 ] || [ "$minor" -lt "$oldest" ] || [ "$minor" -gt "$newest" ]; then
        tried="$tried $candidate=$major.$minor"
        continue
    fi
    if ! "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
        incomplete="${incomplete:-$candidate cannot make virtual environments: install python3.$minor-venv}"
        continue
    fi
    if ! "$candidate" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))'; then
        incomplete="${incomplete:-$candidate has no header Python.h: install python3.$minor-dev}"
        continue
    fi
    python=$("$candidate" -c 'import sys; print(sys.executable)')
    break
done
if [ -z "$python" ]; then
    [ -z "$incomplete" ] || fail "$incomplete." "(Debian and Ubuntu: sudo apt install with that name.)"
    fail "it needs Python 3.$oldest to 3.$newest; found:${tried:- none}." \
        "Install one, for example: sudo apt install python3 python3-venv python3-dev" \
        "or name one: make venv PYTHON=/path/to/python3.12"
fi

printf 'int main(void) { return 0; }\n' | "${CC:-cc}" -x c -o /dev/null - 2>/dev/null ||
    fail "no working C compiler (${CC:-cc})." "Install one, for example: sudo apt install build-essential"
printf '#include <string>\nint main() { return 0; }\n' | "${CXX:-c++}" -x c++ -o /dev/null - 2>/dev/null ||
    fail "no working C++ compiler (${CXX:-c++})." "Install one, for example: sudo apt install build-essential"

printf '%s\n' "$python"
