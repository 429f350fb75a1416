package pgjournal_test

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/journaltest"
	"github.com/tidegate/tidegate/internal/journal/pgjournal"
)

// With both servers in the URL, the old primary may come back and be first in
// it: every connection goes on to the promoted one, of a process that was there
// before, of one that knows by its file, and of one that knows nothing.
func TestOldPrimaryFirstInTheURL(t *testing.T) {
	t.Parallel()
	primary, standby, url := replicated(t)
	var log bytes.Buffer
	opts := options(through(url, primary.Addr()+","+standby.Addr()) + "&target_session_attrs=read-write")
	opts.TimelineFile = filepath.Join(t.TempDir(), "timeline")
	opts.Logger = slog.New(slog.NewTextHandler(&log, nil))
	j := open(t, opts)
	frames := journaltest.Chain(9, 2)
	journaltest.MustAppend(t, j, frames[:2]...)
	before := end(t, j)

	primary.Kill()
	standby.Promote()
	insist(t, j, frames[2])
	primary.Start()
	primary.SyncNames("") // it would take commits without a standby
	onOld := func() string {
		return primary.Query(database(url), "SELECT count(*)::text FROM tidegate_journal.frame")
	}
	old := onOld()
	// As after a restart of everything in between.
	standby.Exec("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'tidegate%'")

	insist(t, j, frames[3])
	for _, f := range frames[4:6] { // served, not only safe
		journaltest.MustAppend(t, j, f)
	}
	if n := after(t, j, before); n != 4 {
		t.Errorf("%d frames behind the promotion, want 4", n)
	}
	fresh := opts
	fresh.TimelineFile = ""
	for i, o := range []pgjournal.Options{opts, fresh} {
		again := open(t, o)
		journaltest.MustAppend(t, again, frames[6+i])
		if n := after(t, again, before); n != 5+i {
			t.Errorf("opened anew: %d frames behind the promotion, want %d", n, 5+i)
		}
	}
	if now := onOld(); now != old {
		t.Errorf("the old primary has %s frames and had %s", now, old)
	}
	journaltest.MustAppend(t, j, frames[8])
	if n := strings.Count(log.String(), "new primary"); n != 1 {
		t.Errorf("the log tells of a new primary %d times:\n%s", n, log.String())
	}
}

// What was proven with the standby of before says nothing about the one that
// was promoted, also where only reading has met it.
func TestReadingNoticesANewPrimary(t *testing.T) {
	t.Parallel()
	primary, standby, url := replicated(t)
	j := open(t, options(through(url, primary.Addr()+","+standby.Addr())+"&target_session_attrs=read-write"))
	run, n := journaltest.NewRun(), uint64(0)
	var last journal.Sealed
	until(t, "class sync-replica", func() bool {
		last = journaltest.Frame(run, n, &last, 1)
		n++
		return insist(t, j, last) == journal.ClassSyncReplica
	})
	at := end(t, j)
	says := func() journal.Class {
		r, err := j.Read(t.Context(), 0, at-1, 1)
		if err != nil || len(r) != 1 {
			return journal.ClassDemo
		}
		return r[0].Class
	}
	if got := says(); got != journal.ClassSyncReplica {
		t.Fatalf("it says %v", got)
	}
	primary.Kill()
	standby.Promote()
	until(t, "the new primary is read", func() bool { _, err := j.End(t.Context(), 0); return err == nil })
	if got := says(); got != journal.ClassLocalFsync {
		t.Errorf("on one server alone it says %v", got)
	}
}
