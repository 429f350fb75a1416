#!/bin/sh
# The quick tests, with the race detector as far as asked for: test.sh auto|all|off.
#
# SQLite is a translated C library: under the race detector it compiles in about 40 s and runs about
# twenty times slower (20,000 inserts: 0.16 s without, 3.7 s with). So `auto` leaves the packages whose tests link it to
# `all`, which test-all runs, and keeps `make test` quick. The flags are the same in both, so that what `auto` has
# tested under the race detector comes from the cache in `all`.
set -eu
mode=${1:-auto}
go=${GO:-go}
tags=${TAGS:-no_k8s}

# A real compile is the only honest question: a compiler may be there without its headers.
can_race() {
	CGO_ENABLED=1 "$go" build -race runtime/cgo runtime/race >/dev/null 2>&1
}

case $mode in
off)
	exec "$go" test -tags "$tags" -vet=off -timeout 10m ./...
	;;
all)
	if ! can_race; then
		echo "The race detector is required here and does not build: install a C compiler (gcc or clang, with the C library's headers)." >&2
		exit 1
	fi
	CGO_ENABLED=1 exec "$go" test -tags "$tags" -vet=off -race -timeout 10m ./...
	;;
auto) ;;
*)
	echo "test.sh: RACE is auto, all or off, not \"$mode\"." >&2
	exit 2
	;;
esac

if ! can_race; then
	echo "Race detector skipped: it needs a C compiler, and none works here."
	exec "$go" test -tags "$tags" -vet=off -timeout 10m ./...
fi

# A package's test binary is listed as PKG.test with all it links.
racy=$("$go" list -tags "$tags" -test -f '{{if eq .Name "main"}}{{.ImportPath}} {{join .Deps " "}}{{end}}' ./... |
	grep -v ' modernc.org/sqlite' | sed -n 's/^\([^ ]*\)\.test .*/\1/p')
all=$("$go" list -tags "$tags" ./...)
plain=$(printf '%s\n' "$all" | while read -r pkg; do
	printf '%s\n' "$racy" | grep -qxF "$pkg" || printf '%s\n' "$pkg"
done)

status=0
if [ -n "$racy" ]; then
	echo "With the race detector:"
	# shellcheck disable=SC2086 # a list of import paths, none with a blank
	CGO_ENABLED=1 "$go" test -tags "$tags" -vet=off -race -timeout 10m $racy || status=1
fi
if [ -n "$plain" ]; then
	echo "Without it (tests that link SQLite, and packages without tests; make test RACE=all has them too):"
	# shellcheck disable=SC2086
	"$go" test -tags "$tags" -vet=off -timeout 10m $plain || status=1
fi
exit $status
