package directory_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/directory"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal/pgjournal"
	"github.com/tidegate/tidegate/internal/postgres"
	"github.com/tidegate/tidegate/internal/store/pgstore"
	"github.com/tidegate/tidegate/test/services"
)

// TestOnPostgreSQL has a feed as the Trial service has it: journal and tables in
// PostgreSQL, opened only to be read, written by others. The server freezes in
// between.
func TestOnPostgreSQL(t *testing.T) {
	pg := services.Postgres(t, services.PGOptions{})
	opts := postgres.Options{URL: pg.NewDatabase(t)}
	_, _, err := pgjournal.Migrate(t.Context(), opts)
	must(t, err)
	j, err := pgjournal.Open(t.Context(), pgjournal.Options{Postgres: opts})
	must(t, err)
	tables, err := pgstore.Open(t.Context(), pgstore.Options{Postgres: opts})
	must(t, err)
	w := newWorld(t, t.TempDir(), newKeys(t), j, tables)
	defer w.close()
	w.seed(20)

	readJournal, err := pgjournal.Open(t.Context(), pgjournal.Options{Postgres: opts, ReadOnly: true})
	must(t, err)
	defer readJournal.Close()
	readTables, err := pgstore.Open(t.Context(), pgstore.Options{Postgres: opts, ReadOnly: true})
	must(t, err)
	defer readTables.Close()
	feed := directory.NewFeed(readJournal, readTables, nil)
	feed.Hurry()
	d := run(directory.New(directory.Options{}), feed)
	defer func() { d.stop() }()
	w.settle(d.Directory)
	w.same(d.Directory)

	pg.Freeze()
	eventually(t, func() bool { return d.State().Age > 300*time.Millisecond }, func() string { return fmt.Sprintf("%+v", d.State()) })
	stopped := make(chan struct{})
	go func() {
		d.stop() // a query that hangs does not hold the stop up
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-time.After(5 * time.Second):
		t.Error("it does not stop while the server is frozen")
	}
	pg.Thaw()
	<-stopped
	if s := d.State(); s.Enrollments != 20 || !errors.Is(s.Err, context.Canceled) {
		t.Errorf("%+v", s)
	}
	w.enrol("T001", "P-21")
	w.command(epro.KindParticipantWithdrew, epro.ParticipantWithdrawn{TrialID: "T001", PatientID: "P-3", Reason: "x", Expect: 1})
	w.report("T001", "P-1")
	d = run(d.Directory, feed)
	w.settle(d.Directory)
	w.same(d.Directory)
}
