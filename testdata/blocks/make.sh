#!/bin/sh
# Makes the block of this directory anew: three series, 480 samples each, one chunk segment, a few KB.
# Needs promtool (of any Prometheus from 2.24 on) on the PATH. The block's name is a new one each time.
set -eu
cd "$(dirname "$0")"
text=$(mktemp)
trap 'rm -f "$text"' EXIT
awk 'BEGIN {
    start = 1767225600
    print "# TYPE owl_sightings counter"
    for (n = 0; n < 2; n++)
        for (i = 0; i < 480; i++)
            printf "owl_sightings_total{forest=\"f%d\"} %d %d\n", n, i * (n + 1) + i % 7, start + i * 15
    print "# TYPE owl_weight_grams gauge"
    for (i = 0; i < 480; i++)
        printf "owl_weight_grams %.2f %d\n", 450 + (i * 37 % 101) / 7, start + i * 15
    print "# EOF"
}' >"$text"
rm -rf ./0*
promtool tsdb create-blocks-from openmetrics "$text" .
