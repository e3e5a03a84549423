#!/bin/sh
# make_venv.sh PYTHON VENV REQUIREMENTS...: create VENV (or complete it), install the pinned REQUIREMENTS, this package in
# place, and the messages that no wheel brings.  Prefers uv, which is ten times faster; pip, which knows the machine's own
# settings, where uv fails.
set -eu

python=$1 venv=$2
shift 2
root=$(cd "$(dirname "$0")/.." && pwd)

"$venv/bin/python" -c '' 2>/dev/null || "$python" -m venv --clear "$venv"

# Set by a ROS process that started this one, it would keep the new environment from finding its own libraries.
unset _ROS_WHEELS_BOOTSTRAP_COMPLETE

install() {
    if [ -x "$venv/bin/uv" ] && "$venv/bin/uv" pip install --quiet --python "$venv/bin/python" "$@"; then return; fi
    echo "uv did not do it; installing with pip (slower)" >&2
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
}

"$venv/bin/python" -m pip install --quiet --disable-pip-version-check uv==0.13.9 ||
    echo "uv could not be installed" >&2
for requirements in "$@"; do
    echo "installing $requirements into $venv" >&2
    install -r "$requirements"
done
install --no-deps --no-build-isolation --editable "$root"
"$venv/bin/python" "$root/tools/build_messages/build.py"

# uv leaves that to the first import, which may not keep it (PYTHONDONTWRITEBYTECODE, another user's folder): then every
# start would parse JAX anew, two seconds of it.
echo "compiling to byte code" >&2
"$venv/bin/python" -m compileall -qq -j 0 -x '/tests?/' "$venv"/lib/python*/site-packages "$root/dsg_ros" ||
    echo "not everything could be compiled to byte code; starts are slower" >&2
