// Package directory is a gateway's own copy of the trial registry: trials,
// sites and enrolments, for screens and due assessments while the Trial service
// or the tables are away. It is fed by a [Source], versioned by the journal's
// position, and kept in a file. It decides nothing about reports: those are
// taken, and judged by the projector, without it.
package directory

import (
	"context"
	"encoding/binary"
	"slices"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/store"
)

// Version says up to where in the journal a directory is complete: two numbers
// for each shard, its position and a mark of the frame there. nil is nothing.
//
// The mark tells histories apart: after a restore the journal may have other
// frames under the positions of before. To everybody but a [Feed] a version is
// a list of numbers to be kept, sent and given back as it is.
type Version []uint64

// Position is how far a version is in a shard; 0 for a shard it does not name.
func (v Version) Position(shard uint32) journal.Position {
	if i := 2 * int(shard); i < len(v) {
		return journal.Position(v[i])
	}
	return 0
}

func (v Version) mark(shard uint32) uint64 { return v[2*int(shard)+1] }

// with is v with one shard further on.
func (v Version) with(shard uint32, at journal.Position, mark uint64) Version {
	v = slices.Clone(v)
	v[2*int(shard)], v[2*int(shard)+1] = uint64(at), mark
	return v
}

// before says whether a version is behind another in any shard.
func (v Version) before(w Version) bool {
	for i := 0; i < len(w); i += 2 {
		if v.Position(uint32(i/2)) < journal.Position(w[i]) {
			return true
		}
	}
	return false
}

// of says whether a version is one of so many shards.
func (v Version) of(shards uint32) bool { return len(v) == 2*int(shards) && shards > 0 }

// markOf is the mark of a header. 0 is no mark: of no frame, or of one that
// could not be read.
func markOf(hash epro.Digest) uint64 { return max(1, binary.BigEndian.Uint64(hash[:])) }

// Change is a step of a directory: the present states of some things. States
// are whole, and receiving one twice, or one that is newer than the version
// beside it, does no harm.
type Change struct {
	// Version is up to where the directory is complete once a change is Done.
	Version Version
	// Snapshot says that this change and those after it, up to the one that is
	// Done, hold everything: what was known before is replaced.
	Snapshot    bool
	Trials      []store.Trial
	Sites       []store.Site
	Enrollments []store.Enrollment
	// Done says that the directory is complete up to Version. A Done change
	// without content comes every few seconds, as a sign of life.
	Done bool
}

// size is how many things a change holds.
func (c *Change) size() int { return len(c.Trials) + len(c.Sites) + len(c.Enrollments) }

// Source tells of changes.
type Source interface {
	// Follow calls fn with each change, in order and one at a time, until ctx
	// ends, fn returns an error, or the source cannot go on; it returns why. From
	// a version that an earlier Follow told of, only what came later is told;
	// from nil, or from a version that is not of the source's journal, everything.
	// It may be called again at once, and by many at the same time.
	Follow(ctx context.Context, from Version, fn func(Change) error) error
}
