#!/bin/sh
# `docker run IMAGE train ...` runs `mmres2net train ...`; the name of a program runs that program; no argument, a shell.
set -e
if [ $# -eq 0 ]; then
    exec /bin/bash
fi
# The verbs first: `test` is a program as well.
case "$1" in
    train | test | configs | check-data | prepare-data | convert-weights | export | predict | cam | complexity | sweep | doctor | demo-data | -*) exec mmres2net "$@" ;;
esac
if command -v "$1" >/dev/null 2>&1; then
    exec "$@"
fi
exec mmres2net "$@"
