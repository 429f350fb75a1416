package verify

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/receipt"
)

const (
	readAhead = 64 // frames a read asks for
	// maxUnreadable is how many positions in a row may be unreadable before the
	// rest of the shard is given up.
	maxUnreadable = 64
)

// shardWalk is the state of the walk through one shard.
type shardWalk struct {
	*audit
	shard   uint32
	end     journal.Position
	frames  uint64 // so far, missing ones included
	tree    rightEdge
	holes   bool // a frame was missing or had no header: tree hashes say nothing from here on
	runs    map[journal.Run]*runState
	headers map[[16]byte]struct{} // of headers so far, cut to 128 bits: enough to know one again
	era     uint64
	zeros   int // runs that began on an empty journal
}

// walk audits one shard from its first frame to the end it has now.
func (a *audit) walk(ctx context.Context, shard uint32) error {
	end, err := a.in.Journal.End(ctx, shard)
	if err != nil {
		return fmt.Errorf("verify: find the journal's end: %w", err)
	}
	w := &shardWalk{
		audit: a, shard: shard, end: end.Position, runs: map[journal.Run]*runState{}, headers: map[[16]byte]struct{}{},
		era: 1,
	}
	unreadable := 0
	for after := journal.Position(0); after < w.end; {
		if err := ctx.Err(); err != nil {
			return err
		}
		limit := readAhead
		if unreadable > 0 {
			limit = 1
		}
		records, err := a.in.Journal.Read(ctx, shard, after, limit)
		var gap *journal.GapError
		switch {
		case errors.As(err, &gap) && gap.Next > after+1:
			w.gap(after, gap.Next)
			after = gap.Next - 1
			continue
		case err != nil && ctx.Err() != nil:
			return ctx.Err()
		case err != nil && limit > 1:
			unreadable = 1 // look again, one by one, for the very place
			continue
		case err != nil:
			after++
			w.find(place{shard, after, -1, nil}, "read", "the frame cannot be read: %v", err)
			w.hole(1)
			if unreadable++; unreadable > maxUnreadable {
				w.find(place{shard, after, -1, nil}, "read", "the frames from here to %d cannot be read either", w.end)
				after = w.end
			}
			continue
		}
		if len(records) == 0 {
			break // the last position is above w.end's, or the end is gone: closed below
		}
		unreadable = 0
		for i := range records {
			if after = records[i].Position; after > w.end {
				break
			}
			if err := w.record(ctx, &records[i]); err != nil {
				return err
			}
		}
		a.in.Progress(Progress{"journal", uint64(min(after, w.end)), uint64(w.end)})
	}
	if w.zeros > 1 {
		a.res.note("%d runs of shard %d began on an empty journal: right when several processes began at the same time; when one process at a time wrote it, frames were put in front of its first",
			w.zeros, shard)
	}
	a.res.Frames += w.frames
	a.res.Runs += len(w.runs)
	a.res.Eras = max(a.res.Eras, w.era)
	if a.shards == nil {
		a.shards, a.ends = map[uint32]uint64{}, map[uint32]journal.Position{}
	}
	a.shards[shard], a.ends[shard] = w.frames, w.end
	if a.books != nil {
		return a.books.endShard(ctx, w)
	}
	return nil
}

func (w *shardWalk) gap(after, next journal.Position) {
	e := &journal.GapError{After: after, Next: next}
	w.find(place{w.shard, after + 1, -1, nil}, "read", "%v", e)
	w.hole(uint64(next - after - 1))
}

// hole counts frames that are not there, so that those behind keep their
// places in the tree.
func (w *shardWalk) hole(n uint64) {
	w.holes = true
	w.frames += n
}

// record audits one frame.
func (w *shardWalk) record(ctx context.Context, r *journal.Record) error {
	at := place{w.shard, r.Position, -1, nil}
	f, err := journal.DecodeFrame(r.Bytes)
	if err != nil {
		// What its header says may still be whole: then only this frame is named,
		// not all that follow it.
		h, herr := headerOf(r.Bytes)
		if herr != nil {
			w.find(at, "frame", "%v", err)
			w.hole(1)
			return nil
		}
		at.header = &h
		w.find(at, "frame", "%v", err)
		f = journal.Frame{Header: h}
	}
	h := &f.Header
	at.header = h
	if err == nil {
		for _, fault := range f.Check() {
			w.find(place{w.shard, r.Position, fault.Index, h}, "frame", "%s", fault.Reason)
		}
	}
	if h.Shard != w.shard {
		w.find(at, "frame", "its header says shard %d", h.Shard)
	}
	hash := h.Hash()
	w.chain(at, h, hash)
	w.headers[[16]byte(hash[:16])] = struct{}{}
	leaf := receipt.FrameLeaf(hash)
	if !w.holes {
		w.tree.add(leaf)
	}
	if w.books != nil {
		if err := w.books.frame(ctx, w, at, leaf); err != nil {
			return err
		}
	}
	w.frames++
	for _, c := range w.anchors {
		c.frame(w, at, hash)
	}
	var acked []*ackRecord
	if w.acks != nil {
		acked = w.acks.frame(h.Run, h.N)
		for _, k := range acked {
			w.checkAckFrame(at, k, hash, &f, err != nil)
		}
	}
	for i := range f.Entries {
		w.res.Facts++
		if err := w.fact(ctx, place{w.shard, r.Position, i, h}, &f.Entries[i], acked); err != nil {
			return err
		}
	}
	return nil
}

func headerOf(b []byte) (journal.Header, error) {
	const magic = 4
	if len(b) < magic+journal.HeaderBytes {
		return journal.Header{}, journal.ErrFrame
	}
	return journal.DecodeHeader(b[magic : magic+journal.HeaderBytes])
}

// runState is the newest frame of a run.
type runState struct {
	next     uint64
	hash     epro.Digest
	time     int64
	position journal.Position
}

// chain checks the frame against its run.
func (w *shardWalk) chain(at place, h *journal.Header, hash epro.Digest) {
	s := w.runs[h.Run]
	if s == nil {
		s = &runState{}
		w.runs[h.Run] = s
		w.firstOfRun(at, h)
	} else {
		switch {
		case h.N < s.next:
			w.find(at, "chain", "it comes behind frame %d of its run, at position %d: it was moved or is there twice", s.next-1, s.position)
			return
		case h.N > s.next:
			w.find(at, "chain", "frames %d to %d of its run are missing in front of it", s.next, h.N-1)
		case h.Prev != s.hash:
			w.find(at, "chain", "it does not follow the frame before it in its run, at position %d: one of the two was changed", s.position)
		case h.Time < s.time:
			w.find(at, "chain", "its time is before that of the frame before it in its run, at position %d", s.position)
		}
	}
	s.next, s.hash, s.time, s.position = h.N+1, hash, h.Time, at.position
}

func (w *shardWalk) firstOfRun(at place, h *journal.Header) {
	_, known := w.headers[[16]byte(h.Prev[:16])]
	switch {
	case h.N != 0:
		w.find(at, "chain", "the %d frames of its run in front of it are missing", h.N)
	case h.Prev.IsZero():
		w.zeros++ // the shard was empty when its process looked; others may have come first
	case !known:
		w.find(at, "chain", "its run began behind a frame (header %s) that is not in front of it: frames were changed, moved or taken away", h.Prev)
	}
}

// fact audits one fact of a frame that could be decoded.
func (w *shardWalk) fact(ctx context.Context, at place, e *journal.Entry, acked []*ackRecord) error {
	env, err := epro.DecodeEnvelope(e.Envelope)
	if err != nil {
		return nil // named by Frame.Check
	}
	if !env.Kind.Known() {
		w.find(at, "kind", "this binary does not know the kind %s: use the version of tidegate that wrote it, or a newer one", env.Kind)
	}
	if e.Erased {
		if w.erasedContent == nil {
			w.erasedContent = map[epro.Digest]place{}
		}
		w.erasedContent[epro.Leaf(e.Envelope)] = at
	}
	var flags uint64
	for _, k := range acked {
		if int(k.index) == at.index && k.ok {
			w.checkAckBody(at, k, e)
			flags = flagAcked
		}
	}
	if env.Kind == epro.KindReport {
		w.reportMeaning(at, &env, e)
		b := w.trial(env.Trial)
		b.Accepted++
		if e.Erased {
			b.Erased++
		}
		if w.books != nil {
			return w.books.report(ctx, w, at, &env, flags)
		}
		b.Pending++ // no tables: nothing has passed it
		return nil
	}
	if e.Erased {
		return nil
	}
	if epro.PlainMeaning(e.Body) != env.Meaning {
		w.find(at, "meaning", "the body does not fit the meaning digest")
	}
	switch env.Kind {
	case epro.KindErased:
		w.erasedFact(at, env.ID, e)
	case epro.KindKeyAdded, epro.KindKeyRetired:
		w.keyFact(at, env.Kind, e)
	case epro.KindEraOpened:
		return w.eraFact(ctx, at, env.ID, e)
	}
	return nil
}

func (w *shardWalk) reportMeaning(at place, env *epro.Envelope, e *journal.Entry) {
	if w.in.MeaningKey == nil || e.Erased {
		return
	}
	r, problems := epro.ParseReport(e.Body)
	if problems != nil {
		return // quarantined by the projector; there is no meaning to compare
	}
	if epro.ReportMeaning(w.in.MeaningKey(env.Trial), r.AppendMeaning(nil)) != env.Meaning {
		w.find(at, "meaning", "the report's content does not fit its meaning digest")
	}
}

// keyFact names a certificate or retirement that the root did not sign. Nobody
// relies on it, but somebody put it there.
func (w *shardWalk) keyFact(at place, kind epro.Kind, e *journal.Entry) {
	if w.in.Keys == nil {
		return
	}
	if err := w.in.Keys.CheckKeyFact(e.Body, kind == epro.KindKeyRetired); err != nil {
		w.find(at, "key", "this %s fact counts for nothing: %v", kind.Name, err)
	}
}

func (w *shardWalk) erasedFact(at place, id epro.UUID, e *journal.Entry) {
	var body epro.Erased
	err := json.Unmarshal(e.Body, &body)
	leaf, err2 := hex.DecodeString(body.Leaf)
	if err != nil || err2 != nil || len(leaf) != len(epro.Digest{}) {
		w.find(at, "erased", "this erased fact names no leaf")
		return
	}
	if w.erasedFacts == nil {
		w.erasedFacts = map[epro.Digest]erasure{}
	}
	w.erasedFacts[epro.Digest(leaf)] = erasure{at, id}
}

func (w *shardWalk) eraFact(ctx context.Context, at place, id epro.UUID, e *journal.Entry) error {
	if _, again := w.eraFacts[id]; again {
		return nil // the same command, asked again: the first one stands
	}
	body, ok := receipt.EraOf(e)
	before := w.frames - 1 // this frame is counted already
	if rejected, err := w.rejected(ctx, id); err != nil || rejected {
		return err
	}
	switch {
	case !ok:
		w.find(at, "era", "this era.opened fact cannot be read")
		return nil
	case body.Era != w.era+1:
		w.find(at, "era", "it opens era %d, and the one before it is %d", body.Era, w.era)
	case body.Frames != before:
		w.find(at, "era", "it says that the journal had %d frames, and there are %d in front of it", body.Frames, before)
	}
	w.era = max(w.era, body.Era)
	if w.eras == nil {
		w.eras, w.eraFacts = map[string]uint64{}, map[epro.UUID]struct{}{}
	}
	w.eras[body.AnchorDigest] = body.Era
	w.eraFacts[id] = struct{}{}
	w.res.note("era %d was opened at position %d: the journal had %d frames and the anchor had seen %d; what the fact says of the reason is in the audit",
		body.Era, at.position, body.Frames, body.AnchorFrames)
	return nil
}

// rightEdge is a tree of which only the right edge is kept: the largest whole
// subtrees from left to right.
type rightEdge struct {
	size  uint64
	nodes []tlog.Hash
}

func (t *rightEdge) add(leaf tlog.Hash) {
	t.nodes = append(t.nodes, leaf)
	for n := t.size; n&1 == 1; n >>= 1 {
		last := len(t.nodes) - 1
		t.nodes = append(t.nodes[:last-1], tlog.NodeHash(t.nodes[last-1], t.nodes[last]))
	}
	t.size++
}

func (t *rightEdge) root() tlog.Hash {
	h := t.nodes[len(t.nodes)-1]
	for i := len(t.nodes) - 2; i >= 0; i-- {
		h = tlog.NodeHash(t.nodes[i], h)
	}
	return h
}
