package sqlitestore

// layout is the version of the tables below, kept as user_version. Any change
// of them is a new number: stores of another one are built anew.
const layout = 2

// applicationID marks the file as a store of Tidegate ("TGst").
const applicationID = 0x54477374

// row is position<<16 | index: the place of a fact, and the order of the
// journal. sk is the handle of a participant in a trial, tk of a trial; both
// only shorten rows and indexes and appear in no dump. Instants from devices
// and gateways are seconds, nanoseconds and (device only) minutes of offset,
// because RFC 3339 can write years that do not fit nanoseconds in 64 bits;
// instants of the journal (committed, created …) are nanoseconds.
//
// report_id is at once the duplicate index, the list of a participant's own
// reports and the versions under an id. report_work keeps the work lists small:
// nearly every report is recorded.
const schema = `
CREATE TABLE cursor(shard INTEGER PRIMARY KEY, position INTEGER NOT NULL, frames INTEGER NOT NULL,
  rule_set TEXT NOT NULL, tz TEXT NOT NULL, era INTEGER NOT NULL) STRICT;
CREATE TABLE frame(position INTEGER PRIMARY KEY, hash BLOB NOT NULL, run BLOB NOT NULL, n INTEGER NOT NULL, time INTEGER NOT NULL) STRICT;
CREATE TABLE tree(idx INTEGER PRIMARY KEY, hash BLOB NOT NULL) STRICT;
CREATE TABLE run(run BLOB PRIMARY KEY, n INTEGER NOT NULL, hash BLOB NOT NULL, time INTEGER NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE trial(trial TEXT PRIMARY KEY, name TEXT NOT NULL, status TEXT NOT NULL, shard INTEGER NOT NULL,
  version INTEGER NOT NULL, created INTEGER NOT NULL, instruments TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE site(trial TEXT NOT NULL, site TEXT NOT NULL, name TEXT NOT NULL, created INTEGER NOT NULL,
  PRIMARY KEY(trial, site)) STRICT, WITHOUT ROWID;
CREATE TABLE trial_key(tk INTEGER PRIMARY KEY, trial TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE subject(sk INTEGER PRIMARY KEY, tk INTEGER NOT NULL, patient TEXT NOT NULL,
  site TEXT, status TEXT, min_epoch INTEGER, version INTEGER, enrolled INTEGER, withdrawn INTEGER, UNIQUE(tk, patient)) STRICT;
CREATE TABLE staff(staff TEXT PRIMARY KEY, name TEXT NOT NULL, removed INTEGER NOT NULL, version INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE staff_grant(staff TEXT NOT NULL, role TEXT NOT NULL, trial TEXT NOT NULL, site TEXT NOT NULL,
  PRIMARY KEY(staff, role, trial, site)) STRICT, WITHOUT ROWID;

CREATE TABLE report(row INTEGER PRIMARY KEY, tk INTEGER NOT NULL, sk INTEGER NOT NULL, id BLOB NOT NULL, version INTEGER NOT NULL,
  disposition INTEGER NOT NULL, reasons INTEGER NOT NULL, resolution INTEGER NOT NULL, flags INTEGER NOT NULL,
  site TEXT, instrument TEXT, score INTEGER, comments TEXT,
  completed INTEGER NOT NULL, completed_ns INTEGER NOT NULL, completed_off INTEGER NOT NULL,
  received INTEGER NOT NULL, received_ns INTEGER NOT NULL, committed INTEGER NOT NULL,
  actor_type INTEGER NOT NULL, actor TEXT, device TEXT, meaning BLOB NOT NULL,
  resolutions INTEGER, resolution_reason TEXT, resolved_by TEXT, resolved INTEGER) STRICT;
CREATE UNIQUE INDEX report_id ON report(sk, id, version);
CREATE INDEX report_trial ON report(tk, row);
CREATE INDEX report_work ON report(tk, disposition, row) WHERE disposition <> 1;
CREATE TABLE duplicate(row INTEGER PRIMARY KEY, of INTEGER NOT NULL, tk INTEGER NOT NULL, sk INTEGER NOT NULL, id BLOB NOT NULL,
  actor_type INTEGER NOT NULL, actor TEXT, device TEXT,
  occurred INTEGER NOT NULL, occurred_ns INTEGER NOT NULL, occurred_off INTEGER NOT NULL,
  received INTEGER NOT NULL, received_ns INTEGER NOT NULL, committed INTEGER NOT NULL) STRICT;
CREATE INDEX duplicate_trial ON duplicate(tk, row);
CREATE TABLE books(trial TEXT PRIMARY KEY, recorded INTEGER NOT NULL, duplicates INTEGER NOT NULL, conflicts INTEGER NOT NULL,
  quarantined INTEGER NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE fact(row INTEGER PRIMARY KEY, kind TEXT NOT NULL, kind_version INTEGER NOT NULL, id BLOB NOT NULL, trial TEXT NOT NULL, subject TEXT NOT NULL,
  actor_type INTEGER NOT NULL, actor TEXT NOT NULL, device TEXT NOT NULL,
  occurred INTEGER NOT NULL, occurred_ns INTEGER NOT NULL, occurred_off INTEGER NOT NULL,
  received INTEGER NOT NULL, received_ns INTEGER NOT NULL, committed INTEGER NOT NULL, meaning BLOB NOT NULL,
  summary TEXT NOT NULL, reason TEXT NOT NULL, applied INTEGER NOT NULL, code TEXT NOT NULL, rejection TEXT NOT NULL,
  version INTEGER NOT NULL, repeats INTEGER) STRICT;
CREATE INDEX fact_id ON fact(id, row);
CREATE INDEX fact_trial ON fact(trial, row);
CREATE TABLE key(row INTEGER PRIMARY KEY, kind TEXT NOT NULL, kind_version INTEGER NOT NULL, body BLOB NOT NULL) STRICT;
`
