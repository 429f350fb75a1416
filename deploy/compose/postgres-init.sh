#!/bin/sh
# First start of the primary, by the image's entrypoint: Tidegate's role and database, the standby's role and
# slot, who may come in, and at the very end that every commit waits for the standby.
set -eu
secrets=${SECRETS:-/run/secrets/tidegate}

psql -v ON_ERROR_STOP=1 -q --username "$POSTGRES_USER" --dbname postgres \
	-v "app=$(cat "$secrets/tidegate-password")" -v "replication=$(cat "$secrets/replication-password")" <<'END'
CREATE ROLE tidegate LOGIN PASSWORD :'app';
CREATE DATABASE tidegate OWNER tidegate;
REVOKE ALL ON DATABASE tidegate FROM PUBLIC;
CREATE ROLE replication LOGIN REPLICATION PASSWORD :'replication';
SELECT pg_create_physical_replication_slot('standby', true);
END

# Over the network with TLS only. Passwords travel as SCRAM.
cat >"$PGDATA/pg_hba.conf" <<'END'
local    all          all                   scram-sha-256
hostssl  tidegate     tidegate     all      scram-sha-256
hostssl  replication  replication  all      scram-sha-256
END

# ALTER SYSTEM commits nothing that would wait, and holds from the next start on, when the standby can join.
psql -v ON_ERROR_STOP=1 -q --username "$POSTGRES_USER" --dbname postgres \
	-c "ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (standby)'"
