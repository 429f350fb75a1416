package pgjournal_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/journaltest"
	"github.com/tidegate/tidegate/internal/journal/pgjournal"
	"github.com/tidegate/tidegate/test/services"
)

// replicated is a journal on a primary whose commits wait for a standby, once
// appends say so.
func replicated(t *testing.T) (primary, standby *services.PG, url string) {
	t.Helper()
	primary = services.Postgres(t, services.PGOptions{})
	url = fresh(t, primary)
	standby = primary.Standby(t)
	settled(t, url)
	return primary, standby, url
}

// settled waits until the change of the standby names is long enough ago to be
// believed.
func settled(t *testing.T, url string) {
	t.Helper()
	j := open(t, options(url))
	defer j.Close()
	run, n := journaltest.NewRun(), uint64(0)
	var last journal.Sealed
	until(t, "class sync-replica", func() bool {
		last = journaltest.Frame(run, n, &last, 1)
		n++
		return insist(t, j, last) == journal.ClassSyncReplica
	})
}

// after is the frames that were appended behind a position.
func after(t *testing.T, j journal.Journal, p journal.Position) int {
	t.Helper()
	r, err := j.Read(t.Context(), 0, p, 1000)
	if err != nil {
		t.Fatal(err)
	}
	return len(r)
}

func end(t *testing.T, j journal.Journal) journal.Position {
	t.Helper()
	r, err := j.End(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	return r.Position
}

// waiting waits until an append waits for the standby and returns the number of
// its process in the server.
func waiting(t *testing.T, pg *services.PG) (pid string) {
	t.Helper()
	until(t, "an append waits for the standby", func() bool {
		pid = pg.Query("postgres", "SELECT coalesce(max(pid), 0)::text FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE '%tidegate_journal%'")
		return pid != "0"
	})
	return pid
}

type result struct {
	class journal.Class
	err   error
}

// behind appends in the background.
func behind(j journal.Journal, f journal.Sealed) <-chan result {
	c := make(chan result, 1)
	go func() {
		class, err := j.Append(context.Background(), f)
		c <- result{class, err}
	}()
	return c
}

// The class is that of the append, and changes with the settings under a
// running process.
func TestClassFollowsTheSettings(t *testing.T) {
	t.Parallel()
	primary := services.Postgres(t, services.PGOptions{})
	url := fresh(t, primary)
	j := open(t, options(url))
	run, n := journaltest.NewRun(), uint64(0)
	var last journal.Sealed
	put := func() journal.Class {
		t.Helper()
		last = journaltest.Frame(run, n, &last, 1)
		n++
		class, err := j.Append(t.Context(), last)
		if err != nil {
			t.Fatal(err)
		}
		return class
	}
	becomes := func(want journal.Class) {
		t.Helper()
		until(t, "class "+want.String(), func() bool { return put() == want })
		if got := open(t, options(url)).Properties().Class; got != want {
			t.Errorf("opened anew it promises %v, want %v", got, want)
		}
	}
	if got := put(); got != journal.ClassLocalFsync || j.Properties().Class != got {
		t.Errorf("alone: %v, promised %v", got, j.Properties().Class)
	}
	primary.Standby(t)
	if got := put(); got != journal.ClassLocalFsync {
		t.Errorf("a moment after the standby was named: %v; the server may not wait for it yet", got)
	}
	becomes(journal.ClassSyncReplica)
	for _, c := range []struct {
		setting string
		want    journal.Class
	}{
		{"full_page_writes = off", journal.ClassDemo},
		{"full_page_writes = on", journal.ClassSyncReplica},
		{"fsync = off", journal.ClassDemo},
		{"fsync = on", journal.ClassSyncReplica},
		{"synchronous_commit = remote_apply", journal.ClassSyncReplica},
		{"synchronous_standby_names = ''", journal.ClassLocalFsync},
	} {
		t.Log(c.setting)
		primary.Exec("postgres", "ALTER SYSTEM SET "+c.setting, "SELECT pg_reload_conf()")
		becomes(c.want)
	}
}

// A wait for the standby that is cancelled is no success and no failure. The
// frame can be seen, and is not acknowledged until the standby has it.
func TestCancelledWait(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"pg_cancel_backend", "pg_terminate_backend"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			primary, standby, url := replicated(t)
			j := trusting(t, options(url))
			frames := journaltest.Chain(3, 2)
			journaltest.MustAppend(t, j, frames[0])
			before := end(t, j)
			standby.Freeze()
			got := behind(j, frames[1])
			primary.Exec("postgres", "SELECT "+how+"("+waiting(t, primary)+")")
			unknown(t, (<-got).err)
			until(t, "the frame is visible", func() bool { return after(t, j, before) == 1 })
			// It is there, and the standby has not said so.
			for range 2 {
				_, err := try(t, j, frames[1], time.Second)
				unknown(t, err)
			}
			standby.Thaw()
			if class := insist(t, j, frames[1]); class != journal.ClassSyncReplica {
				t.Errorf("class %v", class)
			}
			// The proof: the primary is lost.
			primary.Kill()
			standby.Promote()
			promoted := open(t, options(standby.URL(database(url))))
			if after(t, promoted, before) != 1 {
				t.Error("the acknowledged frame is not on the standby")
			}
			journaltest.MustAppend(t, promoted, frames[1:]...)
			if after(t, promoted, before) != 2 {
				t.Error("the run did not go on")
			}
		})
	}
}

// A process that is ended, or loses its connection, while an append waits for
// the standby: the next one that repeats the frame waits for the standby too.
func TestLostWhileWaiting(t *testing.T) {
	t.Parallel()
	primary, standby, url := replicated(t)
	frames := journaltest.Chain(2, 2)
	j := trusting(t, options(url))
	journaltest.MustAppend(t, j, frames[0])
	before := end(t, j)
	standby.Freeze()
	_, err := try(t, j, frames[1], 2*time.Second)
	unknown(t, err)
	pid := waiting(t, primary)
	_, err = try(t, j, frames[1], 500*time.Millisecond)
	unknown(t, err)
	// The server was not asked to cancel: it goes on waiting for its own part, and
	// nobody sees a frame that only one disk has.
	if again := waiting(t, primary); again != pid || after(t, j, before) != 0 {
		t.Errorf("process %s waited, now %s does; %d frames are visible, want 0", pid, again, after(t, j, before))
	}
	standby.Thaw()
	if class := insist(t, j, frames[1]); class != journal.ClassSyncReplica {
		t.Errorf("class %v", class)
	}
}

// Whoever takes the standby out of the settings lets waiting commits go, with
// success. They say that no standby has them.
func TestStandbyTakenOut(t *testing.T) {
	t.Parallel()
	primary, standby, url := replicated(t)
	j := trusting(t, options(url))
	frames := journaltest.Chain(2, 2)
	journaltest.MustAppend(t, j, frames[0])
	standby.Freeze()
	got := behind(j, frames[1])
	waiting(t, primary)
	primary.SyncNames("")
	if r := <-got; r.err != nil || r.class != journal.ClassLocalFsync {
		t.Errorf("%v, %v; want local-fsync", r.class, r.err)
	}
	standby.Thaw()
}

// After a promotion the old primary may come back and take writes. Nobody who
// has seen the new one acknowledges anything there.
func TestOldPrimaryComesBack(t *testing.T) {
	t.Parallel()
	primary, standby, url := replicated(t)
	proxy := services.Proxy(t, primary.Addr())
	file := filepath.Join(t.TempDir(), "timeline")
	opts := options(through(url, proxy.Addr()))
	opts.TimelineFile = file
	j := open(t, opts)
	frames := journaltest.Chain(6, 2)
	journaltest.MustAppend(t, j, frames[:2]...)
	before := end(t, j)

	primary.Kill()
	standby.Promote()
	proxy.Switch(standby.Addr())
	insist(t, j, frames[2])
	if b, err := os.ReadFile(file); err != nil || strings.TrimSpace(string(b)) != "2" {
		t.Errorf("the file says %q, %v; want timeline 2", b, err)
	}

	// The old one returns and would take writes: it waits for nobody.
	primary.Start()
	primary.SyncNames("")
	proxy.Switch(primary.Addr())
	until(t, "the old primary is met", func() bool {
		_, err := try(t, j, frames[3], time.Second)
		if err == nil || errors.Is(err, journal.ErrFork) {
			t.Fatalf("the old primary: %v", err)
		}
		return strings.Contains(err.Error(), "timeline 2")
	})
	if _, err := j.Read(t.Context(), 0, before, 10); err == nil || !strings.Contains(err.Error(), "timeline 2") {
		t.Errorf("read from the old primary: %v", err)
	}
	// Nor does a process that starts now, and knows of the other by its file.
	if old, err := pgjournal.Open(t.Context(), opts); err == nil || !strings.Contains(err.Error(), "timeline 2") {
		t.Errorf("opened on the old primary: %v", err)
		old.Close()
	}

	proxy.Switch(standby.Addr())
	insist(t, j, frames[3])
	if after(t, j, before) != 2 {
		t.Errorf("%d frames behind the promotion, want 2", after(t, j, before))
	}
	for _, p := range []*services.PG{primary, standby} {
		t.Log(p.Query(database(url), "SELECT position || ' on timeline ' || timeline FROM tidegate_journal.head"))
	}
}

// A server that is on a lower timeline than its own head has been put back, or
// upgraded: it is not taken for the newest without a word.
func TestTimelineBelowTheHead(t *testing.T) {
	pg := services.SharedPostgres(t)
	url := fresh(t, pg)
	j := open(t, options(url))
	frames := journaltest.Chain(2, 1)
	journaltest.MustAppend(t, j, frames[0])
	pg.Exec(database(url), "UPDATE tidegate_journal.head SET timeline = 7")
	if _, err := j.Append(t.Context(), frames[1]); !errors.Is(err, journal.ErrNotAppended) || !strings.Contains(err.Error(), "timeline 7") {
		t.Errorf("append: %v", err)
	}
	if _, err := pgjournal.Open(t.Context(), options(url)); err == nil || !strings.Contains(err.Error(), "timeline 7") {
		t.Errorf("open: %v", err)
	}
	opts := options(url)
	opts.ReadOnly = true
	holds(t, open(t, opts), frames[:1])
	pg.Exec(database(url), "UPDATE tidegate_journal.head SET timeline = 0")
	journaltest.MustAppend(t, j, frames[1])
}

func TestStandbyIsForReading(t *testing.T) {
	t.Parallel()
	_, standby, url := replicated(t)
	at := standby.URL(database(url))
	if _, err := pgjournal.Open(t.Context(), options(at)); err == nil || !strings.Contains(err.Error(), "standby") {
		t.Errorf("open on a standby: %v", err)
	}
	opts := options(at)
	opts.ReadOnly = true
	j := open(t, opts)
	if n := len(journaltest.ReadAll(t, j, 10)); n == 0 {
		t.Error("nothing to read")
	}
	if _, err := j.Append(t.Context(), journaltest.Chain(1, 1)[0]); !errors.Is(err, journal.ErrNotAppended) {
		t.Errorf("append: %v, want ErrNotAppended", err)
	}
	if err := j.Wait(t.Context(), 0, 0); err != nil {
		t.Errorf("wait: %v", err)
	}
}

// A receipt that is issued anew says what the frame is known to survive: not
// the standby of another frame, until one behind it was seen there.
func TestRecordsSayWhatTheySurvive(t *testing.T) {
	t.Parallel()
	primary, _, url := replicated(t)
	names := primary.Query("postgres", "SHOW synchronous_standby_names")
	j := open(t, options(url))
	run, n := journaltest.NewRun(), uint64(0)
	var last journal.Sealed
	put := func() journal.Class {
		t.Helper()
		last = journaltest.Frame(run, n, &last, 1)
		n++
		return insist(t, j, last)
	}
	says := func(j journal.Journal, at journal.Position) journal.Class {
		t.Helper()
		r, err := j.Read(t.Context(), 0, at-1, 1)
		if err != nil || len(r) != 1 {
			t.Fatal(r, err)
		}
		return r[0].Class
	}
	primary.SyncNames("")
	until(t, "no standby is waited for", func() bool { return put() == journal.ClassLocalFsync })
	alone := end(t, j)
	if got := says(j, alone); got != journal.ClassLocalFsync {
		t.Errorf("appended while no standby was waited for, it says %v", got)
	}
	primary.SyncNames(names)
	if got := says(j, alone); got != journal.ClassLocalFsync {
		t.Errorf("a standby that is named again has not been seen with it, and it says %v", got)
	}
	until(t, "class sync-replica", func() bool { return put() == journal.ClassSyncReplica })
	if got := says(j, alone); got != journal.ClassSyncReplica {
		t.Errorf("a frame behind it is on the standby, and it says %v", got)
	}
	if other := open(t, options(url)); other.Properties().Class != journal.ClassSyncReplica || says(other, end(t, other)) != journal.ClassLocalFsync {
		t.Errorf("another process has seen nothing proven, and promises %v", says(other, end(t, other)))
	}
}
