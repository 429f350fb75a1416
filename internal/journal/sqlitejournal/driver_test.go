package sqlitejournal_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/tidegate/tidegate/internal/journal/sqlitejournal"
)

// spoiler makes calls of the driver fail: the next COMMITs by a queue, or the
// n-th call of any kind on a writing connection.
type spoiler struct {
	mu            sync.Mutex
	before, after []error // before a transaction begins, and after its COMMIT
	countdown     int     // the call that fails, counted down; 0: none
	done          bool    // whether the failing call is carried out all the same
	hit           string  // the statement that failed
	first         string  // the first call whose statement holds this fails, once
}

var errSpoiled = errors.New("injected failure of the driver")

func (s *spoiler) FailBefore(errs ...error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range errs { // the suite's errors are not ones that a driver returns
		s.before = append(s.before, errSpoiled)
	}
}

func (s *spoiler) FailAfter(errs ...error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.after = append(s.after, errs...)
}

// arm makes the n-th call from now fail, once.
func (s *spoiler) arm(n int, done bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.countdown, s.done, s.hit = n, done, ""
}

// disarm says which statement failed, "" when none did.
func (s *spoiler) disarm() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.countdown = 0
	return s.hit
}

// strike says whether this call fails, and whether it is carried out first.
func (s *spoiler) strike(sql string) (err error, done bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case sql == "BEGIN IMMEDIATE" && len(s.before) > 0:
		err, s.before = s.before[0], s.before[1:]
		return err, false
	case sql == "COMMIT" && len(s.after) > 0:
		err, s.after = s.after[0], s.after[1:]
		return err, true
	}
	if s.first != "" && strings.Contains(sql, s.first) {
		s.first, s.hit = "", sql
		return errSpoiled, s.done
	}
	if s.countdown > 0 {
		if s.countdown--; s.countdown == 0 {
			s.hit = sql
			return errSpoiled, s.done
		}
	}
	return nil, false
}

func (s *spoiler) wrap(c driver.Conn) driver.Conn { return &spoiledConn{c, s} }

type spoiledConn struct {
	driver.Conn
	s *spoiler
}

func (c *spoiledConn) Prepare(sql string) (driver.Stmt, error) {
	st, err := c.Conn.Prepare(sql)
	if err != nil {
		return nil, err
	}
	return &spoiledStmt{st, c.s, sql}, nil
}

type spoiledStmt struct {
	driver.Stmt
	s   *spoiler
	sql string
}

func (st *spoiledStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	err, done := st.s.strike(st.sql)
	if err != nil && !done {
		return nil, err
	}
	res, e := st.Stmt.(driver.StmtExecContext).ExecContext(ctx, args)
	if err == nil {
		err = e
	}
	return res, err
}

func (st *spoiledStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	err, done := st.s.strike(st.sql)
	if err != nil && !done {
		return nil, err
	}
	rows, e := st.Stmt.(driver.StmtQueryContext).QueryContext(ctx, args)
	if err != nil && e == nil {
		return nil, errors.Join(err, rows.Close())
	}
	if err == nil {
		err = e
	}
	return rows, err
}

// Every call of the driver, failing once, carried out or not: nothing that was
// acknowledged is missing, the run goes on, and each frame is there once.
func TestEveryDriverCallFails(t *testing.T) {
	for _, done := range []bool{false, true} {
		t.Run(fmt.Sprintf("CarriedOut=%v", done), func(t *testing.T) {
			var hits []string
			// Folds run beside the appends, so the order of calls differs a little
			// from one life to the next: the end is certain after some without a hit.
			// A checkpoint may always be missed by its number, so the first life asks
			// for one by name.
			for n, misses := 0, 0; misses < 8; n++ {
				if n > 300 {
					t.Fatal("the calls do not come to an end")
				}
				s := &spoiler{done: done}
				if n == 0 {
					s.first = "wal_checkpoint"
				}
				path := memoryDir(t) + "/journal.db"
				j := must(sqlitejournal.OpenWrapped(t.Context(), path, sqlitejournal.Options{CheckpointBytes: 1 << 14}, s.wrap))(t)
				frames := persist(t, j, 6, func(i int) {
					if i == 2 && n > 0 {
						s.arm(n, done)
					}
				})
				_ = j.Close() // may be what fails
				if hit := s.disarm(); hit != "" {
					hits = append(hits, hit)
				} else {
					misses++
				}
				j = must(sqlitejournal.Open(t.Context(), path, sqlitejournal.Options{}))(t)
				complete(t, j, frames)
				if err := j.Close(); err != nil {
					t.Fatal(err)
				}
			}
			all := strings.Join(hits, ";")
			for _, want := range []string{"BEGIN", "INSERT", "COMMIT", "wal_checkpoint"} {
				if !strings.Contains(all, want) {
					t.Errorf("%s was never made to fail: %s", want, all)
				}
			}
		})
	}
}
