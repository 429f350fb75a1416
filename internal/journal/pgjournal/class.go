package pgjournal

import (
	"github.com/tidegate/tidegate/internal/journal"
)

// settingsSQL are the columns that [parseSettings] reads: what is in force for
// this session at this moment. max_wal_senders belongs to them because the
// server waits for no standby when it is 0, and client_min_messages because a
// cancelled wait for a standby is told by a warning and by nothing else. The
// last column says that the configuration was loaded again a moment ago: the
// process of the server that turns waiting for standbys on and off may not have
// heard of it yet.
const settingsSQL = `
	current_setting('synchronous_commit'),
	(btrim(current_setting('synchronous_standby_names')) <> '' AND current_setting('max_wal_senders')::int > 0)::text,
	current_setting('fsync'),
	current_setting('full_page_writes'),
	(current_setting('client_min_messages') = 'error')::text,
	pg_conf_load_time()::text,
	(pg_conf_load_time() > pg_postmaster_start_time() AND clock_timestamp() < pg_conf_load_time() + interval '5 s')::text`

// settingsColumns is how many columns settingsSQL has.
const settingsColumns = 7

// settings decide what a commit survives.
type settings struct {
	commit     string // synchronous_commit
	standbys   bool   // commits wait for standbys
	fsync      bool
	fullPages  bool
	silent     bool   // warnings do not reach this session
	loaded     string // when the configuration was loaded
	justLoaded bool
}

func parseSettings(v []string) settings {
	return settings{
		commit: v[0], standbys: v[1] == "true", fsync: v[2] == "on", fullPages: v[3] == "on",
		silent: v[4] == "true", loaded: v[5], justLoaded: v[6] == "true",
	}
}

// class is what a commit under these settings survives
// (PostgreSQL documentation, synchronous_commit, fsync, full_page_writes).
func (s *settings) class() journal.Class {
	if !s.fsync || !s.fullPages {
		return journal.ClassDemo
	}
	switch s.commit {
	case "on", "remote_apply":
		if s.standbys && !s.silent {
			return journal.ClassSyncReplica
		}
		return journal.ClassLocalFsync
	case "remote_write", "local": // the standby's memory is no disk
		return journal.ClassLocalFsync
	}
	return journal.ClassDemo // off, or a value that is not known here
}

// classOf is the class of a commit that lies between two readings of the
// settings: the weaker of the two. A configuration that was loaded in between,
// or a moment before, may have released the waiting commit or not reached it:
// then no standby is promised.
func classOf(before, after *settings) journal.Class {
	class := weaker(before.class(), after.class())
	if class == journal.ClassSyncReplica && (before.loaded != after.loaded || after.justLoaded) {
		return journal.ClassLocalFsync
	}
	return class
}

func weaker(a, b journal.Class) journal.Class {
	for _, c := range []journal.Class{journal.ClassDemo, journal.ClassLocalFsync} {
		if a == c || b == c {
			return c
		}
	}
	return a
}

// prove notes of what class a commit was that moved or wrote the head at a
// position. When it waited for the standby, that has every frame up to there: it
// replays the primary's log in order. So has it one whose own commit waited for
// nobody because the standby was away. What this process has not seen proven is
// not claimed.
func (j *Journal) prove(shard uint32, position int64, class journal.Class) {
	at := journal.Position(position) //nolint:gosec // positions are positive
	j.mu.Lock()
	defer j.mu.Unlock()
	switch class {
	case journal.ClassSyncReplica:
		j.proven[shard] = max(j.proven[shard], at)
	case journal.ClassDemo:
		j.weak[shard] = max(j.weak[shard], at)
	default:
	}
}

// grade says of records what each is known to survive.
func (j *Journal) grade(shard uint32, records []journal.Record) {
	j.mu.Lock()
	proven, weak := j.proven[shard], j.weak[shard]
	j.mu.Unlock()
	for i := range records {
		r := &records[i]
		switch {
		case r.Position <= proven:
			r.Class = journal.ClassSyncReplica
		case r.Position <= weak:
			r.Class = journal.ClassDemo
		default:
			r.Class = weaker(j.props.Class, journal.ClassLocalFsync)
		}
	}
}
