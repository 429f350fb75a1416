package journaltest

import (
	"errors"
	"testing"

	"github.com/tidegate/tidegate/internal/journal"
)

var errInjected = errors.New("injected")

var faultTests = map[string]func(*testing.T, journal.Journal, Faults){
	"FailBefore":   testFailBefore,
	"FailAfter":    testFailAfter,
	"StaysInDoubt": testStaysInDoubt,
	"DoubtAtClose": testDoubtAtClose,
}

// failed says whether the error is one that a caller has to handle as a
// failure, and never as a fork.
func failed(t *testing.T, err error) {
	t.Helper()
	if err == nil || errors.Is(err, journal.ErrFork) || errors.Is(err, journal.ErrTooLarge) {
		t.Fatalf("a failed append returned %v", err)
	}
}

func testFailBefore(t *testing.T, j journal.Journal, faults Faults) {
	frames := Chain(5, 1)
	MustAppend(t, j, frames[0])
	for _, injected := range []error{errInjected, journal.ErrNotAppended} {
		faults.FailBefore(injected)
		_, err := j.Append(t.Context(), frames[1])
		failed(t, err)
		if r := ReadAll(t, j, 10); len(r) != 1 {
			t.Fatalf("%d records after a failure before persisting, want 1", len(r))
		}
	}
	MustAppend(t, j, frames[1:]...)
	same(t, ReadAll(t, j, 10), frames)
}

func testFailAfter(t *testing.T, j journal.Journal, faults Faults) {
	frames := Chain(5, 1)
	MustAppend(t, j, frames[0])
	faults.FailAfter(errInjected)
	_, err := j.Append(t.Context(), frames[1])
	failed(t, err)
	if errors.Is(err, journal.ErrNotAppended) {
		t.Fatalf("the frame may have been kept, and the error says it surely was not: %v", err)
	}
	MustAppend(t, j, frames[1:]...) // the same again, and on
	same(t, ReadAll(t, j, 10), frames)
}

// A frame whose outcome is unknown stays so when the next try fails earlier:
// that try kept nothing, but the first may have.
func testStaysInDoubt(t *testing.T, j journal.Journal, faults Faults) {
	frames := Chain(2, 1)
	faults.FailAfter(errInjected)
	_, err := j.Append(t.Context(), frames[0])
	failed(t, err)
	for _, injected := range []error{journal.ErrNotAppended, errInjected} {
		faults.FailBefore(injected)
		_, err = j.Append(t.Context(), frames[0])
		failed(t, err)
		if errors.Is(err, journal.ErrNotAppended) {
			t.Fatalf("after an unknown outcome a later failure says that surely nothing was kept: %v", err)
		}
	}
	MustAppend(t, j, frames...)
	same(t, ReadAll(t, j, 10), frames)
}

func testDoubtAtClose(t *testing.T, j journal.Journal, faults Faults) {
	f := Chain(1, 1)[0]
	faults.FailAfter(errInjected)
	_, err := j.Append(t.Context(), f)
	failed(t, err)
	_ = j.Close()
	if _, err := j.Append(t.Context(), f); !errors.Is(err, journal.ErrClosed) || errors.Is(err, journal.ErrNotAppended) {
		t.Fatalf("append of a frame in doubt to a closed journal: %v, want ErrClosed and not ErrNotAppended", err)
	}
}
