package intake_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/intake"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/memjournal"
	"github.com/tidegate/tidegate/internal/receipt"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is an intake over a journal in memory with failure switches.
type rig struct {
	t    *testing.T
	j    *memjournal.Journal
	in   *intake.Intake
	keys *receipt.KeySet
}

func newRig(t *testing.T, change func(*intake.Config), opts ...func(*intake.Options)) *rig {
	t.Helper()
	_, root, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	rootPub := root.Public().(ed25519.PublicKey)
	keys, err := receipt.NewKeySet(receipt.NewKeys(rootPub, receipt.Certify(root, pub, time.Now())), receipt.Fingerprint(rootPub))
	if err != nil {
		t.Fatal(err)
	}
	cfg := intake.NewDefaultConfig()
	if change != nil {
		change(&cfg)
	}
	o := intake.Options{Config: cfg}
	for _, f := range opts {
		f(&o)
	}
	j := memjournal.New(memjournal.Options{})
	in, err := intake.New(t.Context(), j, receipt.NewSigner(key), o)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, j: j, in: in, keys: keys}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = in.Close(ctx)
	})
	return r
}

func report(trial, patient, text string) *epro.Fact {
	return &epro.Fact{
		Envelope: epro.Envelope{
			Kind: epro.KindReport, ID: epro.NewUUID(), Trial: trial, Subject: patient,
			Actor:      epro.Actor{Type: epro.ActorParticipant, ID: patient, Device: "d1"},
			OccurredAt: time.Now(), ReceivedAt: time.Now().UTC(), Meaning: epro.PlainMeaning([]byte(text)),
		},
		Body: []byte(text),
	}
}

// check proves the receipt and that the journal holds the very bytes.
func (r *rig) check(c intake.Committed, body string) {
	r.t.Helper()
	rec := c.Receipt()
	parsed, err := receipt.Parse(rec.String())
	if err != nil {
		r.t.Fatal(err)
	}
	if err := parsed.Check(r.keys); err != nil {
		r.t.Fatal(err)
	}
	if !parsed.MatchesBody([]byte(body)) {
		r.t.Fatal("the receipt is not for these bytes")
	}
}

func (r *rig) frames() []journal.Frame {
	r.t.Helper()
	records, err := r.j.Read(context.Background(), 0, 0, 1000)
	if err != nil {
		r.t.Fatal(err)
	}
	var out []journal.Frame
	for _, rec := range records {
		f, err := journal.DecodeFrame(rec.Bytes)
		if err != nil {
			r.t.Fatal(err)
		}
		if faults := f.Check(); len(faults) > 0 {
			r.t.Fatalf("frame %d: %v", rec.Position, faults)
		}
		out = append(out, f)
	}
	return out
}

func TestIdleCommitsAtOnceAndFramesChain(t *testing.T) {
	r := newRig(t, nil)
	for i := range 3 {
		text := fmt.Sprint("report ", i)
		c, err := r.in.Submit(t.Context(), report("T1", "P1", text))
		if err != nil {
			t.Fatal(err)
		}
		r.check(c, text)
	}
	frames := r.frames()
	if len(frames) != 3 {
		t.Fatalf("%d frames for three reports sent one after the other, want 3", len(frames))
	}
	for i := range frames {
		h := frames[i].Header
		if h.N != uint64(i) || h.Run != r.in.Run() {
			t.Errorf("frame %d has n %d of run %s", i, h.N, h.Run)
		}
		if i > 0 && (h.Prev != frames[i-1].Header.Hash() || h.Time < frames[i-1].Header.Time) {
			t.Errorf("frame %d does not follow the one before", i)
		}
	}
}

func TestFramesGrowUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.j.Slow(10 * time.Millisecond)
		var wg sync.WaitGroup
		for i := range 500 {
			wg.Go(func() {
				text := fmt.Sprint("r", i)
				c, err := r.in.Submit(context.Background(), report("T1", fmt.Sprint("P", i), text))
				if err != nil {
					t.Error(err)
					return
				}
				r.check(c, text)
			})
		}
		wg.Wait()
		if n := len(r.frames()); n > 4 {
			t.Errorf("500 reports at once took %d frames; they should share a few", n)
		}
	})
}

func TestNothingIsAnsweredBeforeItIsDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		release := r.j.Hold()
		answered := make(chan error, 1)
		go func() {
			_, err := r.in.Submit(context.Background(), report("T1", "P1", "x"))
			answered <- err
		}()
		synctest.Wait()
		select {
		case <-answered:
			t.Fatal("answered while the append was under way")
		default:
		}
		release()
		if err := <-answered; err != nil {
			t.Fatal(err)
		}
	})
}

func TestClientThatLeavesDoesNotCancelTheCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		release := r.j.Hold()
		f := report("T1", "P1", "left")
		ctx, leave := context.WithCancel(context.Background())
		answered := make(chan error, 1)
		go func() { _, err := r.in.Submit(ctx, f); answered <- err }()
		synctest.Wait()
		leave()
		if err := <-answered; !errors.Is(err, intake.ErrUnknown) {
			t.Fatalf("a caller that left got %v, want ErrUnknown", err)
		}
		release()
		synctest.Wait()
		if n := len(r.frames()); n != 1 {
			t.Fatalf("%d frames, want the one that was under way", n)
		}
		// The phone's retry gets the receipt of the very same fact.
		again := *f
		c, err := r.in.Submit(context.Background(), &again)
		if err != nil || !c.Remembered {
			t.Fatalf("retry: %v, remembered %v", err, c.Remembered)
		}
		r.check(c, "left")
		if n := len(r.frames()); n != 1 {
			t.Fatalf("the retry appended: %d frames", n)
		}
	})
}

func TestUnknownOutcomeIsRepeatedWithTheSameFrame(t *testing.T) {
	broken := errors.New("connection lost")
	for name, persist := range map[string]bool{"failed before persisting": false, "failed after persisting": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, nil)
				if persist {
					r.j.FailAfter(broken, broken, broken)
				} else {
					// After an unknown try, a "not appended" speaks of that try alone.
					r.j.FailBefore(broken, journal.ErrNotAppended, broken)
				}
				c, err := r.in.Submit(context.Background(), report("T1", "P1", "x"))
				if err != nil {
					t.Fatal(err)
				}
				r.check(c, "x")
				if n := len(r.frames()); n != 1 {
					t.Fatalf("%d frames, want 1", n)
				}
				if n := r.j.Appends(); n != 4 {
					t.Errorf("%d appends, want 4: three without an answer, and the last", n)
				}
			})
		})
	}
}

func TestUnknownIsCalledUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *intake.Config) { c.WaitLimit = 3 * time.Second; c.MaxAge = time.Second })
		release := r.j.Hold()
		first := report("T1", "P1", "x")
		_, err := r.in.Submit(context.Background(), first)
		if !errors.Is(err, intake.ErrUnknown) {
			t.Fatalf("got %v after the wait limit, want ErrUnknown", err)
		}
		var refused *intake.RefusedError
		_, err = r.in.Submit(context.Background(), report("T1", "P2", "y"))
		if !errors.As(err, &refused) || refused.Reason != "commit-slow" || refused.RetryAfter < time.Second {
			t.Fatalf("with a waiter over its age the next got %v, want a refusal for commit-slow", err)
		}
		release()
	})
}

func TestNotAppendedIsNotTaken(t *testing.T) {
	r := newRig(t, nil)
	r.j.FailBefore(journal.ErrNotAppended)
	f := report("T1", "P1", "x")
	if _, err := r.in.Submit(t.Context(), f); !errors.Is(err, intake.ErrNotTaken) {
		t.Fatalf("got %v, want ErrNotTaken", err)
	}
	again := *f
	c, err := r.in.Submit(t.Context(), &again)
	if err != nil || c.Remembered {
		t.Fatalf("the retry of what was not taken: %v, remembered %v", err, c.Remembered)
	}
	if h := r.frames()[0].Header; h.N != 0 {
		t.Errorf("the run's first kept frame has n %d, want 0", h.N)
	}
}

func TestForkIsFatal(t *testing.T) {
	fatal := make(chan error, 1)
	r := newRig(t, nil, func(o *intake.Options) { o.OnFatal = func(err error) { fatal <- err } })
	r.j.FailBefore(journal.ErrFork)
	if _, err := r.in.Submit(t.Context(), report("T1", "P1", "x")); !errors.Is(err, intake.ErrUnknown) {
		t.Fatalf("got %v, want ErrUnknown", err)
	}
	if err := <-fatal; !errors.Is(err, journal.ErrFork) {
		t.Fatalf("fatal with %v", err)
	}
	if _, err := r.in.Submit(t.Context(), report("T1", "P1", "y")); !errors.Is(err, intake.ErrStopped) {
		t.Fatalf("after a fork: %v, want ErrStopped", err)
	}
}

func TestFullFrameRefusesBeforeTaking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *intake.Config) { c.MaxFacts = 10; c.MaxAge = time.Hour })
		release := r.j.Hold()
		var wg sync.WaitGroup
		submit := func(trial string, i int) {
			wg.Go(func() { _, _ = r.in.Submit(context.Background(), report(trial, fmt.Sprint("P", i), "x")) })
			synctest.Wait()
		}
		submit("T1", 0) // in commit
		for i := range 10 {
			submit("T1", i+1) // fills the next
		}
		var refused *intake.RefusedError
		if _, err := r.in.Submit(context.Background(), report("T1", "P99", "x")); !errors.As(err, &refused) || refused.Reason != "frame-full" {
			t.Fatalf("the eleventh got %v, want a refusal for frame-full", err)
		}
		release()
		wg.Wait()
		if s := r.in.Stats(); s.Facts != 11 || s.FrameFull != 1 {
			t.Errorf("facts %d refused %d, want 11 and 1", s.Facts, s.FrameFull)
		}
	})
}

func TestNoTrialTakesMoreThanHalfWhileAnotherWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *intake.Config) { c.MaxFacts = 10; c.MaxAge = time.Hour })
		release := r.j.Hold()
		var wg sync.WaitGroup
		results := map[string]int{}
		var mu sync.Mutex
		submit := func(trial string, i int) {
			wg.Go(func() {
				_, err := r.in.Submit(context.Background(), report(trial, fmt.Sprint("P", i), "x"))
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					results[trial]++
				} else {
					results[trial+" refused"]++
				}
			})
			synctest.Wait()
		}
		submit("first", 0) // in commit
		submit("small", 0)
		for i := range 12 {
			submit("big", i)
		}
		for i := range 4 {
			submit("small", i+1)
		}
		release()
		wg.Wait()
		if results["big"] != 5 || results["small"] != 5 || results["small refused"] != 0 {
			t.Errorf("a frame of ten was shared as %v, want five and five", results)
		}
	})
}

func TestTokenBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *intake.Config) { c.Burst = 3; c.Refill = time.Minute })
		send := func(p string) error {
			_, err := r.in.Submit(context.Background(), report("T1", p, "x"))
			return err
		}
		for range 3 {
			if err := send("P1"); err != nil {
				t.Fatal(err)
			}
		}
		var refused *intake.RefusedError
		if err := send("P1"); !errors.Is(err, intake.ErrTooFast) || !errors.As(err, &refused) || refused.RetryAfter > time.Minute {
			t.Fatalf("the fourth at once got %v", err)
		}
		if err := send("P2"); err != nil {
			t.Fatalf("another participant: %v", err)
		}
		time.Sleep(time.Minute)
		if err := send("P1"); err != nil {
			t.Fatalf("after a minute: %v", err)
		}
	})
}

func TestDiskFloor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		free := uint64(1 << 30)
		r := newRig(t, nil, func(o *intake.Options) {
			o.DiskFree = func() (uint64, error) { mu.Lock(); defer mu.Unlock(); return free, nil }
		})
		set := func(n uint64) { mu.Lock(); free = n; mu.Unlock(); time.Sleep(time.Second) }
		set(1 << 20)
		var refused *intake.RefusedError
		if _, err := r.in.Submit(context.Background(), report("T1", "P1", "x")); !errors.As(err, &refused) || refused.Reason != "disk-low" {
			t.Fatalf("with a full disk: %v", err)
		}
		set(1 << 30)
		if _, err := r.in.Submit(context.Background(), report("T1", "P1", "x")); err != nil {
			t.Fatalf("with room again: %v", err)
		}
	})
}

func TestCloseResolvesEveryWaiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.j.Slow(100 * time.Millisecond)
		var wg sync.WaitGroup
		var mu sync.Mutex
		durable := 0
		for i := range 50 {
			wg.Go(func() {
				_, err := r.in.Submit(context.Background(), report("T1", fmt.Sprint("P", i), "x"))
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					durable++
				} else if !errors.Is(err, intake.ErrStopped) {
					t.Errorf("an indefinite end: %v", err)
				}
			})
		}
		synctest.Wait()
		if err := r.in.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		n := 0
		for _, f := range r.frames() {
			n += len(f.Entries)
		}
		if n != durable || n != 50 {
			t.Errorf("%d acknowledged, %d in the journal, 50 sent before the stop", durable, n)
		}
	})
}

func TestCloseGivesUpOnAJournalThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.j.FailBefore(slices.Repeat([]error{errors.New("connection lost")}, 1000)...)
		answered := make(chan error, 2)
		for range 2 {
			go func() {
				_, err := r.in.Submit(context.Background(), report("T1", "P1", "x"))
				answered <- err
			}()
			synctest.Wait()
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := r.in.Close(ctx); err == nil {
			t.Error("closed without a word about the frame of unknown outcome")
		}
		got := map[bool]int{}
		for range 2 {
			err := <-answered
			got[errors.Is(err, intake.ErrUnknown)]++
			if err == nil {
				t.Error("acknowledged by a journal that hangs")
			}
		}
		if got[true] != 1 || got[false] != 1 {
			t.Errorf("the frame in hand is unknown, the next surely not taken; got %v", got)
		}
	})
}

func TestMemoryIsBounded(t *testing.T) {
	r := newRig(t, func(c *intake.Config) { c.Remember = 10; c.Burst = 0 })
	var facts []*epro.Fact
	for i := range 30 {
		f := report("T1", "P1", fmt.Sprint(i))
		facts = append(facts, f)
		if _, err := r.in.Submit(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	old, recent := *facts[0], *facts[29]
	if c, err := r.in.Submit(t.Context(), &recent); err != nil || !c.Remembered {
		t.Errorf("a recent report was forgotten: %v", err)
	}
	if c, err := r.in.Submit(t.Context(), &old); err != nil || c.Remembered {
		t.Errorf("an old report is still remembered: %v", err)
	}
	other := *facts[29]
	other.Body, other.Meaning = []byte("other"), epro.PlainMeaning([]byte("other"))
	if c, err := r.in.Submit(t.Context(), &other); err != nil || c.Remembered {
		t.Errorf("other content under the same id got the first one's receipt: %v", err)
	}
}

func TestBulk(t *testing.T) {
	r := newRig(t, func(c *intake.Config) { c.MaxFacts = 100; c.Burst = 0 })
	facts := make([]*epro.Fact, 1000)
	for i := range facts {
		facts[i] = report("T1", fmt.Sprint("P", i), fmt.Sprint(i))
	}
	facts[500].Body = make([]byte, epro.MaxBodyBytes+1) // one that cannot be taken hurts no neighbour
	for i, o := range r.in.SubmitAll(t.Context(), facts) {
		if i == 500 {
			if o.Err == nil {
				t.Error("a body over the bound was taken")
			}
			continue
		}
		if o.Err != nil {
			t.Fatalf("line %d: %v", i, o.Err)
		}
		r.check(o.Committed, fmt.Sprint(i))
	}
	for _, f := range r.frames() {
		if len(f.Entries) > 50 {
			t.Errorf("a bulk filled %d places of a frame of 100", len(f.Entries))
		}
	}
}

func TestRefusalsAndRetriesCostNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		low := true
		var mu sync.Mutex
		r := newRig(t, func(c *intake.Config) { c.Burst = 2; c.Refill = time.Hour }, func(o *intake.Options) {
			o.DiskFree = func() (uint64, error) {
				mu.Lock()
				defer mu.Unlock()
				if low {
					return 0, nil
				}
				return 1 << 40, nil
			}
		})
		f := report("T1", "P1", "x")
		send := func() error {
			again := *f
			_, err := r.in.Submit(context.Background(), &again)
			return err
		}
		for range 10 {
			if err := send(); !errors.Is(err, intake.ErrRefused) {
				t.Fatalf("with a full disk: %v", err)
			}
		}
		mu.Lock()
		low = false
		mu.Unlock()
		time.Sleep(time.Second)
		r.j.FailBefore(journal.ErrNotAppended)
		if err := send(); !errors.Is(err, intake.ErrNotTaken) {
			t.Fatalf("not appended: %v", err)
		}
		for range 10 { // the first is taken, the others are retries of it
			if err := send(); err != nil {
				t.Fatal(err)
			}
		}
		for _, o := range r.in.SubmitAll(context.Background(), []*epro.Fact{f, f, f}) {
			if o.Err != nil {
				t.Fatalf("retry in a bulk: %v", o.Err)
			}
		}
		f = report("T1", "P1", "second")
		if err := send(); err != nil {
			t.Fatalf("the second of two allowed: %v", err)
		}
		f = report("T1", "P1", "third")
		if err := send(); !errors.Is(err, intake.ErrTooFast) {
			t.Fatalf("the third: %v, want too fast", err)
		}
	})
}
