#!/bin/sh
# `docker run IMAGE train ...` is `mmres2net train ...`; a name that is a program runs as that program; nothing: a shell.
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
