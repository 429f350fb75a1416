#!/bin/sh
# The standby: a copy of the primary at the first start, then what the primary sends. The arguments go to postgres.
set -eu
umask 077
secrets=${SECRETS:-/run/secrets/tidegate}
export HOME=/nonexistent # a password it is, no certificate of whoever's home this might be
primary="host=${PRIMARY:-postgres} port=${PRIMARY_PORT:-5432} user=replication application_name=standby sslmode=verify-full sslrootcert=$secrets/ca.crt"

if [ ! -s "$PGDATA/PG_VERSION" ]; then
	copy=$PGDATA.copy
	PGPASSWORD=$(cat "$secrets/replication-password")
	export PGPASSWORD
	tries=0
	until rm -rf "$copy" && pg_basebackup --dbname "$primary" --pgdata "$copy" --write-recovery-conf --wal-method stream --checkpoint fast --slot standby; do
		tries=$((tries + 1))
		[ "$tries" -lt 60 ] || exit 1
		sleep 1
	done
	unset PGPASSWORD
	mv "$copy" "$PGDATA"
fi
# The primary's wish to wait for this standby came along in the copy. Promoted, it would wait for itself.
exec postgres -D "$PGDATA" -c synchronous_standby_names= "$@"
