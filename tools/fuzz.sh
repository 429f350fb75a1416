#!/bin/sh
# Runs every fuzz target of the repository for the given time: fuzz.sh 20s.
# `go test -fuzz` takes one target of one package at a time, hence the loop.
set -eu
time=${1:-20s}
go=${GO:-go}

found=0
for file in $(grep -rl --include='*_test.go' '^func Fuzz' internal test bench cmd 2>/dev/null | sort); do
	for name in $(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$file"); do
		found=1
		echo "== $name ($(dirname "$file"))"
		"$go" test -tags "${TAGS:-no_k8s}" -run '^$' -fuzz "^$name\$" -fuzztime "$time" "./$(dirname "$file")"
	done
done
[ "$found" = 1 ] || echo "No fuzz targets found."
