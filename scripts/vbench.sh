#!/bin/sh
# Score a folder of videos with VBench, in an environment of its own: VBench's pins (transformers 4.33, numpy 1, torchvision)
# cannot live beside ieadapt's. Needs Python 3.10, a CUDA GPU for any usable speed, and the network: VBench fetches about
# 16 models on its first use, one or two per dimension.
#
#   scripts/vbench.sh VIDEOS [DIMENSION ...]           videos made by `ieadapt bench vbench`: named PROMPT-INDEX.mp4
#   scripts/vbench.sh --custom VIDEOS [DIMENSION ...]  any videos: the dimensions that need no prompt list
#
# VBENCH_ENV is the environment's folder (default .venv-vbench), VBENCH_PYTHON its interpreter (default python3.10),
# VBENCH_OUT where results go (default vbench-results/NAME_OF_VIDEOS), a file per dimension.
# Then: ieadapt bench vbench --results vbench-results/enhanced --against vbench-results/plain
set -eu

environment=${VBENCH_ENV:-.venv-vbench}
standard="subject_consistency background_consistency temporal_flickering motion_smoothness dynamic_degree aesthetic_quality
imaging_quality object_class multiple_objects human_action color spatial_relationship scene temporal_style appearance_style
overall_consistency"
custom="subject_consistency background_consistency motion_smoothness dynamic_degree aesthetic_quality imaging_quality"

mode=""
dimensions=$standard
if [ "${1:-}" = "--custom" ]; then
    mode="--mode=custom_input"
    dimensions=$custom
    shift
fi
if [ $# -lt 1 ] || [ ! -d "$1" ]; then
    echo "usage: scripts/vbench.sh [--custom] VIDEOS [DIMENSION ...]" >&2
    exit 2
fi
videos=$1
results=${VBENCH_OUT:-vbench-results/$(basename "$videos")}
shift
[ $# -eq 0 ] || dimensions=$*

if [ ! -x "$environment/bin/vbench" ]; then
    "${VBENCH_PYTHON:-python3.10}" -m venv "$environment"
    "$environment/bin/python" -m pip install --quiet "vbench==0.1.5"
fi
for dimension in $dimensions; do
    # the prompt list of the standard dimensions comes with the package
    "$environment/bin/python" "$(dirname "$0")/vbench_score.py" "$videos" "$dimension" "$results" $mode
done
echo "results: $results"
