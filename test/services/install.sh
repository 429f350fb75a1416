#!/bin/sh
# Installs what the tests ask of the system beyond Go. Does nothing when all of it is there.
#
#   gcc, libc headers   the race detector
#   strace              failing and slow fsync, counting of system calls
#   e2fsprogs, xfsprogs small real file systems: disk full, power loss
#   mount               losetup, mount
#   sqlite3             an SQLite that is not the product's, to damage and inspect databases
#   postgresql          journal, tables and vault of the second shape, and a standby
#   etcd                discovery and election: built from tools/etcd into bin/tools/etcd with Go
set -eu
cd "$(dirname "$0")/../.."

missing=""
need() { # need COMMAND PACKAGE
	PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1 && return
	case " $missing " in *" $2 "*) ;; *) missing="${missing:+$missing }$2" ;; esac
}

need gcc gcc
[ -e /usr/include/stdlib.h ] || missing="${missing:+$missing }libc6-dev"
need strace strace
need mkfs.ext4 e2fsprogs
need mkfs.xfs xfsprogs
need losetup mount
need mount mount
need sqlite3 sqlite3
# Debian keeps the server's programs off the PATH; the places are those that test/services/run looks at.
postgres=""
for dir in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin "$(dirname "$(command -v postgres || echo /none/postgres)")"; do
	[ -x "$dir/postgres" ] && [ -x "$dir/initdb" ] && postgres=$dir
done
[ -n "$postgres" ] || missing="${missing:+$missing }postgresql"

by_hand() {
	echo "services: missing: $missing" >&2
	echo "services: $1 Install them by hand, then run this again; make test works without them." >&2
	exit 1
}

# etcd needs no package and no root: it is a Go program, in a module of its own.
build_etcd() {
	command -v "${GO:-go}" >/dev/null 2>&1 || {
		echo "services: etcd is built with Go, which is not on the PATH." >&2
		return 1
	}
	want=$(sed -n 's/^[[:space:]]*go\.etcd\.io\/etcd\/server\/v3 \(v[^ ]*\).*/\1/p' tools/etcd/go.mod)
	have=$("${GO:-go}" version -m bin/tools/etcd 2>/dev/null | awk '$1 == "mod" { print $3 }') || have=""
	[ "$want" = "$have" ] && return
	echo "services: building etcd $want from tools/etcd (once, about a minute)"
	mkdir -p bin/tools
	# Under another name first: a test that runs meanwhile must not meet half a program.
	(cd tools/etcd && CGO_ENABLED=0 GOFLAGS= "${GO:-go}" build -trimpath -ldflags '-s -w' -o ../../bin/tools/etcd.sh go.etcd.io/etcd/server/v3) || {
		echo "services: etcd cannot be built: its modules must be in the module cache or reachable." >&2
		return 1
	}
	mv bin/tools/etcd.sh bin/tools/etcd
}

if [ -n "$missing" ]; then
	command -v apt-get >/dev/null 2>&1 || by_hand "This script knows apt-get only, and it is not here."
	[ "$(id -u)" = 0 ] || by_hand "Installing needs root (sudo sh test/services/install.sh)."

	echo "services: installing $missing"
	export DEBIAN_FRONTEND=noninteractive
	# shellcheck disable=SC2086 # a list of package names
	apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1 || {
		# Most often the package lists are old or absent.
		apt-get update -qq
		apt-get install -y -qq --no-install-recommends $missing
	}
fi
build_etcd
echo "services: everything is here."
