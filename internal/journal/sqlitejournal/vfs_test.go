//go:build linux && amd64

package sqlitejournal_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/journaltest"
	"github.com/tidegate/tidegate/internal/journal/sqlitejournal"
)

// A file layer that fails: SQLite's own for Unix, with the writing calls of its
// method table replaced. The engine under test is the product's own.

// ioFault says which call fails and how.
type ioFault struct {
	mu        sync.Mutex
	countdown int   // the call that fails, counted down; 0: none
	rc        int32 // what it returns
	done      bool  // whether it is carried out all the same
	torn      bool  // whether a write is carried out by half
	sticky    bool  // whether all later calls fail too, until disarmed
	hit       string
	since     []string // the calls after the one that failed
}

var vfsFault ioFault

func (f *ioFault) arm(n int, rc int32, done, torn, sticky bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.countdown, f.rc, f.done, f.torn, f.sticky, f.hit = n, rc, done, torn, sticky, ""
	f.since = nil
}

func (f *ioFault) disarm() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.countdown = 0
	return f.hit
}

func (f *ioFault) strike(call string) (fails bool, rc int32, done, torn bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.countdown == 0 {
		if f.hit != "" {
			f.since = append(f.since, call)
		}
		return false, 0, false, false
	}
	if f.countdown > 1 {
		f.countdown--
		return false, 0, false, false
	}
	if f.hit == "" {
		f.hit = call
	}
	if !f.sticky {
		f.countdown = 0
	}
	return true, f.rc, f.done, f.torn
}

type (
	writeFn    = func(*libc.TLS, uintptr, uintptr, int32, int64) int32
	truncateFn = func(*libc.TLS, uintptr, int64) int32
	syncFn     = func(*libc.TLS, uintptr, int32) int32
	openFn     = func(*libc.TLS, uintptr, uintptr, uintptr, int32, uintptr) int32
)

// A function pointer of the translated C is the address of a Go closure.
func funcOf[F any](p uintptr) F { return *(*F)(unsafe.Pointer(&struct{ p uintptr }{p})) }

func pointerTo[F any](f F) uintptr {
	kept = append(kept, f)
	return *(*uintptr)(unsafe.Pointer(&struct{ f F }{f}))
}

// at is the C value at an address, which lies in memory that Go does not move.
func at[T any](p uintptr) *T { return *(**T)(unsafe.Pointer(&p)) }

var kept []any // what C memory points to and the collector cannot see

var registerVFS = sync.OnceValue(func() string {
	const name = "failing"
	tls := libc.NewTLS()
	sqlite3.Xsqlite3_initialize(tls)
	base := sqlite3.Xsqlite3_vfs_find(tls, 0)
	size := unsafe.Sizeof(sqlite3.Tsqlite3_vfs{})
	vfs := libc.Xmalloc(tls, libc.Tsize_t(size))
	*at[sqlite3.Tsqlite3_vfs](vfs) = *at[sqlite3.Tsqlite3_vfs](base)
	v := at[sqlite3.Tsqlite3_vfs](vfs)
	cname, err := libc.CString(name)
	if err != nil {
		panic(err)
	}
	v.FzName, v.FpNext = cname, 0
	open := funcOf[openFn](v.FxOpen)
	var mu sync.Mutex
	tables := map[uintptr]uintptr{} // the original's method table → ours
	v.FxOpen = pointerTo(openFn(func(tls *libc.TLS, self, name, file uintptr, flags int32, out uintptr) int32 {
		rc := open(tls, self, name, file, flags, out)
		if f := at[sqlite3.Tsqlite3_file](file); rc == sqlite3.SQLITE_OK && f.FpMethods != 0 {
			mu.Lock()
			defer mu.Unlock()
			ours, ok := tables[f.FpMethods]
			if !ok {
				ours = failingMethods(tls, f.FpMethods)
				tables[f.FpMethods] = ours
			}
			f.FpMethods = ours
		}
		return rc
	}))
	if rc := sqlite3.Xsqlite3_vfs_register(tls, vfs, 0); rc != sqlite3.SQLITE_OK {
		panic(fmt.Sprintf("register: %d", rc))
	}
	return name
})

func failingMethods(tls *libc.TLS, original uintptr) uintptr {
	table := libc.Xmalloc(tls, libc.Tsize_t(unsafe.Sizeof(sqlite3.Tsqlite3_io_methods{})))
	*at[sqlite3.Tsqlite3_io_methods](table) = *at[sqlite3.Tsqlite3_io_methods](original)
	m := at[sqlite3.Tsqlite3_io_methods](table)
	write, truncate, fsync := funcOf[writeFn](m.FxWrite), funcOf[truncateFn](m.FxTruncate), funcOf[syncFn](m.FxSync)
	m.FxWrite = pointerTo(writeFn(func(tls *libc.TLS, file, buf uintptr, n int32, off int64) int32 {
		fails, rc, done, torn := vfsFault.strike("write")
		switch {
		case !fails:
			return write(tls, file, buf, n, off)
		case done:
			write(tls, file, buf, n, off)
		case torn:
			write(tls, file, buf, n/2, off)
		}
		return rc
	}))
	m.FxTruncate = pointerTo(truncateFn(func(tls *libc.TLS, file uintptr, size int64) int32 {
		fails, rc, done, _ := vfsFault.strike("truncate")
		if !fails || done {
			if e := truncate(tls, file, size); !fails {
				return e
			}
		}
		return rc
	}))
	m.FxSync = pointerTo(syncFn(func(tls *libc.TLS, file uintptr, flags int32) int32 {
		fails, rc, done, _ := vfsFault.strike("sync")
		if !fails || done {
			if e := fsync(tls, file, flags); !fails {
				return e
			}
		}
		return rc
	}))
	return table
}

// The n-th write, truncation or sync fails, for every n that a short life of a
// journal has: appends, checkpoints, recovery and close.
func TestEveryWritingCallFails(t *testing.T) {
	vfs := registerVFS()
	for _, mode := range []struct {
		name               string
		rc                 int32
		done, torn, sticky bool
	}{
		{name: "NotDone", rc: sqlite3.SQLITE_IOERR_WRITE},
		{name: "DoneAll", rc: sqlite3.SQLITE_IOERR_FSYNC, done: true},
		{name: "Torn", rc: sqlite3.SQLITE_IOERR_WRITE, torn: true},
		{name: "Full", rc: sqlite3.SQLITE_FULL},
		{name: "FullForAWhile", rc: sqlite3.SQLITE_FULL, sticky: true},
	} {
		t.Run(mode.name, func(t *testing.T) {
			hits := map[string]int{}
			for n := 1; ; n++ {
				if n > 400 {
					t.Fatal("the calls do not come to an end")
				}
				path := memoryDir(t) + "/journal.db"
				j := must(sqlitejournal.OpenVFS(t.Context(), path, sqlitejournal.Options{CheckpointBytes: 1 << 15}, vfs))(t)
				tries := 0
				frames := persist(t, j, 6, func(i int) {
					switch {
					case i == 2:
						vfsFault.arm(n, mode.rc, mode.done, mode.torn, mode.sticky)
					case i < 0: // an append failed: a lasting fault passes in the end
						if tries++; tries == 3 {
							vfsFault.disarm()
						}
					}
				})
				_ = j.Close() // may be the one that fails
				hit := vfsFault.disarm()
				// A fresh look at the file, by the ordinary file layer.
				j = must(sqlitejournal.Open(t.Context(), path, sqlitejournal.Options{}))(t)
				complete(t, j, frames)
				if err := j.Close(); err != nil {
					t.Fatal(err)
				}
				if hit == "" {
					break
				}
				hits[hit]++
			}
			if hits["write"] == 0 || hits["sync"] == 0 {
				t.Errorf("what failed: %v", hits)
			}
			t.Logf("failed once each: %v", hits)
		})
	}
}

// A sync that failed may have thrown away what it was to keep, and one that is
// repeated then succeeds on nothing. So before the frame is acknowledged at the
// second try, all of the -wal has been written elsewhere, or given up.
func TestFailedSyncIsNotRepeated(t *testing.T) {
	vfs := registerVFS()
	for _, done := range []bool{false, true} {
		for n := 1; !failedSync(t, vfs, n, done); n++ {
			if n > 50 {
				t.Fatal("a commit without a sync")
			}
		}
	}
}

// failedSync makes the n-th call of a commit fail; false when that is not yet
// the sync.
func failedSync(t *testing.T, vfs string, n int, done bool) bool {
	j := must(sqlitejournal.OpenVFS(t.Context(), memoryDir(t)+"/journal.db", sqlitejournal.Options{}, vfs))(t)
	defer j.Close()
	frames := journaltest.Chain(6, 20)
	journaltest.MustAppend(t, j, frames[:3]...)
	vfsFault.arm(n, sqlite3.SQLITE_IOERR_FSYNC, done, false, false)
	_, err := j.Append(t.Context(), frames[3])
	if hit := vfsFault.disarm(); hit != "sync" {
		return false
	}
	if err == nil || errors.Is(err, journal.ErrNotAppended) {
		t.Fatalf("after a failed sync: %v, want an unknown outcome", err)
	}
	journaltest.MustAppend(t, j, frames[3])
	vfsFault.mu.Lock()
	since := vfsFault.since
	vfsFault.mu.Unlock()
	if !slices.Contains(since, "truncate") {
		t.Errorf("acknowledged on the strength of a -wal whose sync failed: %v", since)
	}
	journaltest.MustAppend(t, j, frames[4:]...)
	complete(t, j, frames)
	return true
}
