#!/bin/sh
# Everything secret that the containers of compose.yaml need, made once into volumes: certificates, passwords,
# and Tidegate's keys. Runs before them, as their user, and keeps what is there.
#
#   secrets.sh SECRETS ROOT DATA      folder of secrets, root folder of keys, data folders of the roles
set -eu
umask 077
here=$(dirname "$0")
secrets=$1 root=$2 data=$3
roles="gateway-1 gateway-2 trial-1 trial-2 projector-1 projector-2"

# shellcheck disable=SC2086 # a list of names
sh "$here/certs.sh" "$secrets" postgres postgres-standby etcd $roles

password() { # password FILE
	[ -s "$1" ] && return
	openssl rand -hex 24 >"$1.new"
	mv "$1.new" "$1"
}
password "$secrets/postgres/superuser-password"
password "$secrets/postgres/tidegate-password"
password "$secrets/postgres/replication-password"
cp "$secrets/postgres/replication-password" "$secrets/postgres-standby/replication-password"

[ -e "$root/keys" ] || tidegate keys init --data "$root"
for role in $roles; do
	cp "$secrets/postgres/tidegate-password" "$secrets/$role/postgres-password"
	# To give a role another signing key: docker compose run secrets … keys issue, then restart the role.
	[ -e "$data/$role/keys" ] || tidegate keys issue --data "$root" --to "$data/$role" --name "$role"
done
mkdir -p "$data/migrate" "$secrets/migrate"
cp "$secrets/postgres/tidegate-password" "$secrets/migrate/postgres-password"
cp "$secrets/ca/ca.crt" "$secrets/migrate/ca.crt"
echo "secrets: everything is there"
