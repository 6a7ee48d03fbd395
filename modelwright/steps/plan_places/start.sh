#!/bin/sh
# Runs the plan builder where the plan is built: start.sh REQUEST RESULT. It comes with the request, as the code does.
# Standard output is the builder's log.
set -eu
echo "plan builder: started"
umask 0 # whoever this runs as, the one who asked must be able to remove what it leaves
request=$1
result=$2
work=$(mktemp -d)
python3 -m zipfile -e "$request/code.zip" "$work/code"
export PYTHONPATH="$work/code"

# NVIDIA's image brings TensorRT, CUDA and Python. What else the builder imports is installed where the image lacks it.
missing=""
lacks() { ! python3 -c "import $1" 2>/dev/null && missing="$missing $2"; }
lacks numpy 'numpy>=1.26' || true
lacks packaging 'packaging>=24' || true
lacks pydantic.main,pydantic_core 'pydantic>=2.11' || true
lacks polygraphy.backend.trt 'polygraphy>=0.49' || true
if [ -n "$missing" ]; then
  echo "installing$missing"
  # shellcheck disable=SC2086  # several requirements, without blanks
  python3 -m pip install --disable-pip-version-check --no-cache-dir --quiet --target "$work/packages" $missing
  export PYTHONPATH="$work/code:$work/packages"
fi
exec python3 -m modelwright.steps.plan_places.program "$request" "$result"
