package faults_test

import (
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"github.com/tidegate/tidegate/test/services"
)

// TestAuditorsFindALostFrame is the control: a database that loses its newest
// frame after it was acknowledged, as one with a lying disk does, is found out.
// Without it the other tests would prove nothing.
func TestAuditorsFindALostFrame(t *testing.T) {
	pg := services.Postgres(t, services.PGOptions{})
	database := pg.NewDatabase(t)
	w := newWorld(t, pg, options{journal: database})
	w.warm(4)
	w.crowd.Settle(30 * time.Second)
	w.settled()
	w.clean(true)
	w.must(w.StopAll())
	u, err := url.Parse(database)
	w.must(err)
	pg.Exec(filepath.Base(u.Path),
		"SET session_replication_role = replica", // whatever guards the table
		"DELETE FROM tidegate_journal.frame f USING tidegate_journal.head h WHERE f.shard = h.shard AND f.position = h.position",
		"UPDATE tidegate_journal.head SET position = position - 1")
	if a := w.judge(false); a.OK || a.Lost == 0 {
		t.Errorf("the newest frame is gone, and the auditor says: %s", a)
	}
}
