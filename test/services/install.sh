#!/bin/sh
# Installs what the long tests ask of the system beyond Go. Does nothing when all of it is there.
#
#   gcc, libc headers   the race detector
#   strace              failing and slow fsync, counting of system calls
#   e2fsprogs, xfsprogs small real file systems: disk full, power loss
#   mount               losetup, mount
#   sqlite3             an SQLite that is not the product's, to damage and inspect databases
set -eu

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

if [ -z "$missing" ]; then
	echo "services: everything is here."
	exit 0
fi

by_hand() {
	echo "services: missing: $missing" >&2
	echo "services: $1 Install them by hand, then run this again; make test works without them." >&2
	exit 1
}

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
echo "services: done."
