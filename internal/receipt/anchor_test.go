package receipt_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/tidegate/tidegate/internal/receipt"
)

func TestFileAnchor(t *testing.T) {
	dir := t.TempDir()
	a := receipt.NewFileAnchor(filepath.Join(dir, "deep", "er", "anchor.txt"))
	if _, err := a.Read(t.Context()); !errors.Is(err, receipt.ErrNoAnchor) {
		t.Fatalf("before the first write: %v", err)
	}
	for _, s := range []string{"one", "two", "two", "three"} {
		if err := a.Write(t.Context(), []byte(s)); err != nil {
			t.Fatal(err)
		}
		if b, err := a.Read(t.Context()); err != nil || string(b) != s {
			t.Fatalf("read %q, %v", b, err)
		}
	}
	if b, _ := os.ReadFile(a.Path() + ".prev"); string(b) != "two" {
		t.Errorf("the one before is %q", b)
	}
	entries, _ := os.ReadDir(filepath.Dir(a.Path()))
	if len(entries) != 2 {
		t.Errorf("left behind: %v", entries)
	}
	if err := os.Remove(a.Path()); err != nil {
		t.Fatal(err)
	}
	if b, err := a.Read(t.Context()); err != nil || string(b) != "two" {
		t.Errorf("without the file: %q, %v", b, err)
	}
	// What cannot be written says so and leaves what was there.
	blocked := receipt.NewFileAnchor(filepath.Join(dir, "file", "anchor.txt"))
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := blocked.Write(t.Context(), []byte("x")); err == nil {
		t.Error("written below a file")
	}
}

func TestURLAnchor(t *testing.T) {
	var mu sync.Mutex
	var held []byte
	status := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case status != 0:
			w.WriteHeader(status)
		case r.Method == http.MethodPut:
			held, _ = io.ReadAll(r.Body)
			w.WriteHeader(http.StatusNoContent)
		case held == nil:
			w.WriteHeader(http.StatusNotFound)
		default:
			_, _ = w.Write(held)
		}
	}))
	defer s.Close()
	secret := strings.Replace(s.URL, "http://", "http://user:hunter2@", 1) + "/a?token=hunter2"
	a, err := receipt.ParseAnchor(secret)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Read(t.Context()); !errors.Is(err, receipt.ErrNoAnchor) {
		t.Errorf("before the first write: %v", err)
	}
	if err := a.Write(t.Context(), []byte("one")); err != nil {
		t.Fatal(err)
	}
	if b, err := a.Read(t.Context()); err != nil || string(b) != "one" {
		t.Errorf("read %q, %v", b, err)
	}
	mu.Lock()
	status = 500
	mu.Unlock()
	_, rerr := a.Read(t.Context())
	werr := a.Write(t.Context(), []byte("two"))
	s.Close()
	gone := a.Write(t.Context(), []byte("two"))
	for _, err := range []error{rerr, werr, gone} {
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("error %v", err)
		}
	}
	if strings.Contains(a.String(), "hunter2") {
		t.Errorf("its name shows the secret: %s", a)
	}
	if _, err := receipt.ParseAnchor("ftp://x/y"); err == nil {
		t.Error("ftp is taken")
	}
	if _, err := receipt.ParseAnchor(""); err == nil {
		t.Error("an empty anchor is taken")
	}
}

func TestAnchorPaths(t *testing.T) {
	fp := strings.Repeat("0123456789abcdef", 4)
	p, err := receipt.DefaultAnchorPath("/srv/tidegate/data/", fp)
	if err != nil || p != "/srv/tidegate/data.anchors/0123456789abcdef.txt" {
		t.Errorf("default %q, %v", p, err)
	}
	dir := t.TempDir()
	if !receipt.SameFilesystem(dir, filepath.Join(dir, "not", "there", "yet")) {
		t.Error("two paths below one folder are said to lie apart")
	}
	if _, err := os.Stat("/proc/self"); err == nil && receipt.SameFilesystem(dir, "/proc/self") {
		t.Error("/proc is said to lie with the others")
	}
}

// memAnchor is an anchor in memory that can be made to fail or to hang.
type memAnchor struct {
	mu     sync.Mutex
	name   string
	held   []byte
	writes int
	fail   error
	hang   bool
}

func (a *memAnchor) String() string { return a.name }

func (a *memAnchor) Write(ctx context.Context, b []byte) error {
	a.mu.Lock()
	hang, fail := a.hang, a.fail
	a.mu.Unlock()
	if hang {
		<-ctx.Done()
		return ctx.Err()
	}
	if fail != nil {
		return fail
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.held, a.writes = bytes.Clone(b), a.writes+1
	return nil
}

func (a *memAnchor) Read(context.Context) ([]byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.held == nil {
		return nil, receipt.ErrNoAnchor
	}
	return a.held, nil
}

func (a *memAnchor) frames(t testing.TB) uint64 {
	t.Helper()
	b, err := a.Read(t.Context())
	if err != nil {
		return 0
	}
	c, err := receipt.PeekCheckpoint(b)
	if err != nil {
		t.Fatal(err)
	}
	return c.Frames
}

func (a *memAnchor) set(fn func(*memAnchor)) { a.mu.Lock(); fn(a); a.mu.Unlock() }

func TestAnchorLoop(t *testing.T) {
	r := newRing(t, "")
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		now, era := uint64(0), uint64(1)
		set := func(frames uint64) { mu.Lock(); now = frames; mu.Unlock() }
		good, bad := &memAnchor{name: "good"}, &memAnchor{name: "bad", hang: true}
		asked := 0
		loop := receipt.NewAnchorLoop(receipt.AnchorLoopOptions{
			Source: func(context.Context) (receipt.Checkpoint, error) {
				mu.Lock()
				defer mu.Unlock()
				c := r.checkpoint(now)
				c.Frames, c.Era = now, era
				return c, nil
			},
			Signer: func() *receipt.Signer { asked++; return r.signer }, Anchors: []receipt.Anchor{bad, good},
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- loop.Run(ctx) }()
		wait := func(d time.Duration) { time.Sleep(d); synctest.Wait() }
		wait(6 * time.Second)
		if good.writes != 0 || asked != 0 {
			t.Error("an empty journal is signed")
		}
		set(3)
		wait(5 * time.Second)
		if good.frames(t) != 3 || good.writes != 1 {
			t.Errorf("frames %d after %d writes; the anchor that hangs holds the other up", good.frames(t), good.writes)
		}
		wait(30 * time.Second)
		if good.writes != 1 || asked != 1 {
			t.Errorf("%d writes, %d signatures with nothing new", good.writes, asked)
		}
		set(9)
		wait(5 * time.Second)
		good.set(func(a *memAnchor) { a.fail = errors.New("disk full") })
		set(12)
		wait(5 * time.Second)
		if s := loop.Status()[1]; s.Err == "" || s.Failing.IsZero() || s.Frames != 9 {
			t.Errorf("status of a failing anchor %+v", s)
		}
		good.set(func(a *memAnchor) { a.fail = nil })
		wait(6 * time.Second)
		if s := loop.Status()[1]; s.Err != "" || !s.Failing.IsZero() || s.Frames != 12 || good.frames(t) != 12 {
			t.Errorf("status of an anchor that works again %+v", s)
		}
		// Tables that are made anew pass through smaller trees: not to be written.
		set(2)
		wait(6 * time.Second)
		if s := loop.Status()[1]; good.frames(t) != 12 || s.Err == "" {
			t.Errorf("an anchor went back to %d frames, status %+v", good.frames(t), s)
		}
		mu.Lock()
		era = 2
		mu.Unlock()
		wait(6 * time.Second)
		if good.frames(t) != 2 {
			t.Errorf("a new era is not written: %d frames", good.frames(t))
		}
		set(20)
		start := time.Now()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("at the end: %v", err)
		}
		if good.frames(t) != 20 {
			t.Errorf("nothing is written at the end: %d frames", good.frames(t))
		}
		if time.Since(start) > 4*time.Second {
			t.Errorf("the end took %v", time.Since(start))
		}
	})
}

func TestAnchorLoopLeavesForeignAnchorsAlone(t *testing.T) {
	r, other := newRing(t, ""), newRing(t, "")
	foreign := &memAnchor{name: "a", held: other.sign(t, other.checkpoint(1))}
	odd := &memAnchor{name: "b", held: []byte("somebody's notes")}
	bigger := &memAnchor{name: "c", held: r.sign(t, r.checkpoint(50))}
	loop := receipt.NewAnchorLoop(receipt.AnchorLoopOptions{
		Source: func(context.Context) (receipt.Checkpoint, error) { return r.checkpoint(7), nil },
		Signer: func() *receipt.Signer { return r.signer }, Anchors: []receipt.Anchor{foreign, odd, bigger}, Every: time.Millisecond,
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := loop.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if foreign.writes+odd.writes+bigger.writes != 0 {
		t.Error("an anchor was overwritten that is not ours, or that knows more")
	}
	for _, s := range loop.Status() {
		if s.Err == "" {
			t.Errorf("status %+v says nothing of it", s)
		}
	}
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
