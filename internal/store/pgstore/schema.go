package pgstore

// layout is the version of the tables below. Any change of them is a new
// number: tables of another one are built anew. A column whose meaning changes
// gets another name too, so that a reader of an older version that is still
// running fails at it instead of misreading it. The table layout itself never
// changes: every version reads it.
const layout = 1

// Names of schemas. All statements are written for the first; those of a build
// are made from them.
const (
	schemaName     = "tidegate_store"
	schemaBuilding = "tidegate_store_building"
	schemaOld      = "tidegate_store_old" // swapped out, not yet dropped
)

// Texts are bytea: PostgreSQL's text cannot hold U+0000, which a report's words
// may hold, depends on the database's encoding, and sorts by its collation;
// bytes come back as they were and sort the same everywhere.
//
// row is position<<16 | index: the place of a fact, and the order of the
// journal. sk is the handle of a participant in a trial, tk of a trial; both
// only shorten rows and indexes and appear in no dump. Instants from devices
// and gateways are seconds, nanoseconds and (device only) minutes of offset,
// because RFC 3339 can write years that timestamptz or nanoseconds in 64 bits
// cannot hold; instants of the journal (committed, created …) are nanoseconds.
//
// report_id is at once the duplicate index, the list of a participant's own
// reports and the versions under an id. report_work keeps the work lists small:
// nearly every report is recorded. The lists of a trial ask for row+0, so that
// the planner cannot walk the primary key through the rows of all trials for a
// page of a small one, as it would for its guess that all are of one size.
//
// A cursor's row is there from the beginning, so that it can be locked; its
// position is NULL until the first frame is applied. Every transaction gives it
// another mark.
const schema = `
CREATE TABLE tidegate_store.layout(layout integer NOT NULL, generation uuid NOT NULL);
CREATE TABLE tidegate_store.cursor(shard bigint PRIMARY KEY, position bigint, frames bigint NOT NULL DEFAULT 0,
  rule_set bytea NOT NULL DEFAULT '', tz bytea NOT NULL DEFAULT '', era bigint NOT NULL DEFAULT 1, mark uuid NOT NULL DEFAULT gen_random_uuid())
  WITH (fillfactor=10);
CREATE TABLE tidegate_store.frame(shard bigint NOT NULL, position bigint NOT NULL, n bigint NOT NULL, time bigint NOT NULL,
  hash bytea NOT NULL, run bytea NOT NULL, PRIMARY KEY(shard, position));
CREATE TABLE tidegate_store.tree(shard bigint NOT NULL, idx bigint NOT NULL, hash bytea NOT NULL, PRIMARY KEY(shard, idx));
CREATE TABLE tidegate_store.run(shard bigint NOT NULL, n bigint NOT NULL, time bigint NOT NULL, run bytea NOT NULL, hash bytea NOT NULL,
  PRIMARY KEY(shard, run)) WITH (fillfactor=50);

CREATE TABLE tidegate_store.trial(trial bytea PRIMARY KEY, name bytea NOT NULL, status bytea NOT NULL, shard bigint NOT NULL,
  version bigint NOT NULL, created bigint NOT NULL, instruments bytea NOT NULL);
CREATE TABLE tidegate_store.site(trial bytea NOT NULL, site bytea NOT NULL, name bytea NOT NULL, created bigint NOT NULL, PRIMARY KEY(trial, site));
CREATE TABLE tidegate_store.trial_key(tk bigint PRIMARY KEY, trial bytea NOT NULL UNIQUE);
CREATE TABLE tidegate_store.subject(sk bigint PRIMARY KEY, tk bigint NOT NULL, version bigint, enrolled bigint, withdrawn bigint, min_epoch bigint,
  patient bytea NOT NULL, site bytea, status bytea, UNIQUE(tk, patient));
CREATE TABLE tidegate_store.staff(staff bytea PRIMARY KEY, name bytea NOT NULL, removed boolean NOT NULL, version bigint NOT NULL);
CREATE TABLE tidegate_store.staff_grant(staff bytea NOT NULL, role bytea NOT NULL, trial bytea NOT NULL, site bytea NOT NULL,
  PRIMARY KEY(staff, role, trial, site));

CREATE TABLE tidegate_store.report(row bigint PRIMARY KEY, tk bigint NOT NULL, sk bigint NOT NULL, id uuid NOT NULL,
  completed bigint NOT NULL, received bigint NOT NULL, committed bigint NOT NULL,
  completed_ns integer NOT NULL, received_ns integer NOT NULL, version integer NOT NULL,
  completed_off smallint NOT NULL, disposition smallint NOT NULL, reasons smallint NOT NULL, resolution smallint NOT NULL DEFAULT 0,
  actor_type smallint NOT NULL, score smallint, clock_apart boolean NOT NULL, erased boolean NOT NULL, erasure_told boolean NOT NULL DEFAULT false,
  meaning bytea NOT NULL, site bytea, instrument bytea, comments bytea, actor bytea, device bytea,
  resolutions bigint, resolved bigint, resolution_reason bytea, resolved_by bytea);
CREATE UNIQUE INDEX report_id ON tidegate_store.report(sk, id, version);
CREATE INDEX report_trial ON tidegate_store.report(tk, (row+0));
CREATE INDEX report_work ON tidegate_store.report(tk, disposition, (row+0)) WHERE disposition <> 1;
CREATE TABLE tidegate_store.duplicate(row bigint PRIMARY KEY, of bigint NOT NULL, tk bigint NOT NULL, sk bigint NOT NULL, id uuid NOT NULL,
  occurred bigint NOT NULL, received bigint NOT NULL, committed bigint NOT NULL, occurred_ns integer NOT NULL, received_ns integer NOT NULL,
  occurred_off smallint NOT NULL, actor_type smallint NOT NULL, actor bytea, device bytea);
CREATE INDEX duplicate_trial ON tidegate_store.duplicate(tk, (row+0));
CREATE TABLE tidegate_store.books(trial bytea PRIMARY KEY, recorded bigint NOT NULL, duplicates bigint NOT NULL, conflicts bigint NOT NULL,
  quarantined bigint NOT NULL) WITH (fillfactor=50);

CREATE TABLE tidegate_store.fact(row bigint PRIMARY KEY, id uuid NOT NULL, occurred bigint NOT NULL, received bigint NOT NULL, committed bigint NOT NULL,
  version bigint NOT NULL, repeats bigint, occurred_ns integer NOT NULL, received_ns integer NOT NULL, kind_version integer NOT NULL,
  occurred_off smallint NOT NULL, actor_type smallint NOT NULL, applied boolean NOT NULL, kind bytea NOT NULL, trial bytea NOT NULL, subject bytea NOT NULL,
  actor bytea NOT NULL, device bytea NOT NULL, meaning bytea NOT NULL, summary bytea NOT NULL, reason bytea NOT NULL,
  code bytea NOT NULL, rejection bytea NOT NULL);
CREATE INDEX fact_id ON tidegate_store.fact(id, row);
CREATE INDEX fact_trial ON tidegate_store.fact(trial, (row+0));
CREATE TABLE tidegate_store.key(row bigint PRIMARY KEY, kind bytea NOT NULL, kind_version integer NOT NULL, body bytea NOT NULL);

INSERT INTO tidegate_store.cursor(shard) VALUES (0);
`
