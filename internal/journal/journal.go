// Package journal is the durable, ordered record of facts: its contract, and
// the bytes of its frames.
//
// A journal is small on purpose: it has no transactions and no queries. All
// that anyone sees elsewhere (tables, screens, exports) is computed from it and
// can be thrown away. Adapters (sqlitejournal, memjournal) each pass the suite
// in journaltest.
package journal

import (
	"context"
	"errors"
	"fmt"
)

// Position is the place of a frame in its shard: opaque, strictly increasing,
// zero before the first frame. It is not dense on every adapter.
type Position uint64

// Record is a frame as it lies in the journal. Bytes are as stored and are not
// checked: [DecodeFrame] does that, so that a damaged frame can be named.
type Record struct {
	Position Position
	Bytes    []byte
	// Class is what this frame is known to survive now, for a receipt that is
	// issued anew; 0 says Properties().Class. A journal whose frames differ says it
	// of each, and never more than it knows.
	Class Class
}

// Journal is the durable, ordered record. All methods are safe for concurrent
// use. Several processes may append to one shard, each under runs of its own.
type Journal interface {
	// Append makes the frame durable as the class it returns says, and only
	// then returns a nil error. It is idempotent on (shard, run, n): the same
	// frame again is nil, whether or not the first try was answered.
	//
	// Errors: [ErrNotAppended] means that surely nothing was kept. [ErrFork]
	// means that another frame lies under the same (shard, run, n), or that the
	// frame does not follow its run: fatal, stop. [ErrTooLarge]: over
	// Properties().MaxFrameBytes; surely nothing was kept. Any other error means
	// that the outcome is unknown: the caller MUST repeat the same frame until
	// it knows, and MUST NOT append another to the run meanwhile.
	//
	// Cancelling ctx may make the outcome unknown; it never undoes it.
	Append(ctx context.Context, f Sealed) (Class, error)

	// Read returns up to limit records after the given position, in order, at
	// once: fewer when the shard ends or they are large, none only when it ends.
	// Every record is returned once in a walk that passes each last position on,
	// and the same walk gives the same records for the whole retention.
	Read(ctx context.Context, shard uint32, after Position, limit int) ([]Record, error)

	// Wait returns nil when the shard has a record after the given position,
	// or ctx's error. It may also return nil early, with none there yet.
	Wait(ctx context.Context, shard uint32, after Position) error

	// End returns the shard's last record, or a zero Record for an empty shard.
	End(ctx context.Context, shard uint32) (Record, error)

	// Properties says what this journal promises. It does not change while open.
	Properties() Properties

	// Close releases the journal. Appends under way end first.
	Close() error
}

// Properties is what a journal promises.
type Properties struct {
	Class         Class  // what a nil Append survives when all is well
	MaxFrameBytes int    // Append refuses larger frames with ErrTooLarge
	Shards        uint32 // shards are 0 to Shards-1
}

// Errors of [Journal.Append]; test with errors.Is.
var (
	ErrNotAppended = errors.New("frame was not appended")
	ErrFork        = errors.New("another frame lies under this run and number")
	ErrTooLarge    = errors.New("frame is larger than this journal takes")
	ErrClosed      = errors.New("journal is closed")
)

// GapError is what Read returns when records that were once there are not: the
// journal was damaged or tampered with. A walk that has to go on all the same,
// as the auditor's has, continues after Next-1.
type GapError struct {
	After Position // the last record before the gap, 0 when the first is missing
	Next  Position // the first record behind it
}

// Error names the missing positions.
func (e *GapError) Error() string {
	if e.Next == e.After+2 {
		return fmt.Sprintf("the journal lacks frame %d: it was taken away or lost", e.After+1)
	}
	return fmt.Sprintf("the journal lacks frames %d to %d: they were taken away or lost", e.After+1, e.Next-1)
}

// Class is a durability class: what an acknowledged frame survives. The number
// is part of the receipt's byte format and of its signature.
type Class uint8

// The durability classes (docs/format.md §4).
const (
	ClassLocalFsync   Class = 1 // crash, kill, power cut of an honest disk
	ClassSyncReplica  Class = 2 // the same, and the loss of one database host
	ClassQuorumMemory Class = 3 // loss of one broker
	ClassQuorumFsync  Class = 4 // loss of one broker, and power cut of all
	ClassDemo         Class = 5 // whatever the journal says; not for patients
)

var classNames = [...]string{
	ClassLocalFsync: "local-fsync", ClassSyncReplica: "sync-replica", ClassQuorumMemory: "quorum-memory",
	ClassQuorumFsync: "quorum-fsync", ClassDemo: "demo",
}

// Valid says whether c is one of the named classes.
func (c Class) Valid() bool { return c >= ClassLocalFsync && c <= ClassDemo }

// String is the class's name in receipts, the API and the configuration.
func (c Class) String() string {
	if !c.Valid() {
		return "unknown"
	}
	return classNames[c]
}
