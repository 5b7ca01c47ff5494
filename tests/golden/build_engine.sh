#!/bin/sh
# Builds policy.engine on this computer, for its GPU and its TensorRT (10 or newer).
# usage: sh build_engine.sh [qdq|float] [rows of the largest batch, 1 if not given]
set -eu
cd "$(dirname "$0")"
case "${1:-qdq}" in
    qdq) model=policy.qdq.onnx ;;
    float) model=policy.onnx ;;
    *) echo "the model is qdq or float, not $1" >&2; exit 2 ;;
esac
case "${2:-1}" in
    0* | *[!0-9]*) echo "the largest batch is a whole number of rows, not $2" >&2; exit 2 ;;
esac
trtexec=$(command -v trtexec || echo /usr/src/tensorrt/bin/trtexec)
if [ ! -x "$trtexec" ]; then
    echo "there is no trtexec here: install TensorRT (JetPack: apt-get install tensorrt), or put it on the PATH" >&2
    exit 3
fi
if [ "${2:-1}" = 1 ]; then
    set -- --shapes=observation:1x24,memory:1x8
else
    set -- --minShapes=observation:1x24,memory:1x8 --optShapes=observation:1x24,memory:1x8 "--maxShapes=observation:$2x24,memory:$2x8"
fi
"$trtexec" --onnx="$model" --saveEngine=policy.engine.new --stronglyTyped "$@"
mv policy.engine.new policy.engine
