package verify

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/receipt"
)

// Ack is a line of an acks file: what a phone that was answered can show.
type Ack struct {
	ReportID  string `json:"reportId"`
	PatientID string `json:"patientId"`
	TrialID   string `json:"trialId"`
	SHA256    string `json:"sha256"` // of the bytes sent, hexadecimal
	Receipt   string `json:"receipt"`
	Derived   bool   `json:"derived,omitempty"` // the phone sent no id; reportId is the one it was told, or ""
}

// ackRecord is what is kept of an acknowledgement until its frame passes.
type ackRecord struct {
	run    journal.Run
	n      uint64
	header epro.Digest
	sha    epro.Digest
	leaf   [8]byte // of the envelope's leaf: tells the facts of a damaged frame apart
	index  uint32
	line   uint32
	met    bool // its frame passed
	ok     bool // its frame passed and is the one that was signed
	judged bool // its body was compared
}

const (
	ackChunk   = 8192
	maxAckLine = 64 << 10
	// maxProven bounds the memory of signatures that were checked already: one
	// stands for all receipts of a frame.
	maxProven = 1 << 16
)

// ackIndex finds acknowledgements by run and number. Records lie in chunks that
// never move, so that reading a long file does not need room twice.
type ackIndex struct {
	chunks [][]ackRecord
	order  []uint32
	size   int
}

func (x *ackIndex) at(i uint32) *ackRecord { return &x.chunks[i/ackChunk][i%ackChunk] }

func (x *ackIndex) add(r *ackRecord) {
	if x.size%ackChunk == 0 {
		x.chunks = append(x.chunks, make([]ackRecord, 0, ackChunk))
	}
	last := len(x.chunks) - 1
	x.chunks[last] = append(x.chunks[last], *r)
	x.size++
}

func compareKey(r *ackRecord, run journal.Run, n uint64) int {
	if c := bytes.Compare(r.run[:], run[:]); c != 0 {
		return c
	}
	switch {
	case r.n < n:
		return -1
	case r.n > n:
		return 1
	}
	return 0
}

func (x *ackIndex) sort() {
	x.order = make([]uint32, x.size)
	for i := range x.order {
		x.order[i] = uint32(i)
	}
	slices.SortFunc(x.order, func(i, j uint32) int {
		a, b := x.at(i), x.at(j)
		if c := compareKey(a, b.run, b.n); c != 0 {
			return c
		}
		return int(a.index) - int(b.index)
	})
}

// frame gives the acknowledgements under a run and number.
func (x *ackIndex) frame(run journal.Run, n uint64) []*ackRecord {
	i, found := slices.BinarySearchFunc(x.order, n, func(i uint32, n uint64) int { return compareKey(x.at(i), run, n) })
	if !found {
		return nil
	}
	var out []*ackRecord
	for ; i < len(x.order); i++ {
		r := x.at(x.order[i])
		if compareKey(r, run, n) != 0 {
			break
		}
		out = append(out, r)
	}
	return out
}

// readAcks reads and proves the whole file before the journal is looked at.
func (a *audit) readAcks(ctx context.Context) error {
	a.acks, a.res.Acks = &ackIndex{}, &Acks{}
	p := prover{keys: a.in.Keys, proven: map[epro.Digest]struct{}{}}
	in := bufio.NewReaderSize(a.in.Acks, maxAckLine)
	var done uint64
	for line := 1; ; line++ {
		if line%1024 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			a.in.Progress(Progress{"acks", done, a.in.AcksBytes})
		}
		text, err := in.ReadSlice('\n')
		done += uint64(len(text))
		tooLong := errors.Is(err, bufio.ErrBufferFull)
		for errors.Is(err, bufio.ErrBufferFull) {
			var more []byte
			more, err = in.ReadSlice('\n')
			done += uint64(len(more))
		}
		ended := errors.Is(err, io.EOF)
		if err != nil && !ended {
			return fmt.Errorf("verify: read the acks: %w", err)
		}
		if ended && len(text) == 0 {
			break
		}
		a.res.Acks.Lines++
		record, err := p.ack(text)
		if tooLong {
			err = errors.New("the line is longer than any acknowledgement")
		}
		switch {
		case err != nil && ended && !json.Valid(text):
			// Without its line end: whoever wrote it was stopped in the middle. What it
			// was about to say was perhaps never answered.
			a.res.Acks.Lines--
			a.res.Acks.CutLine = true
			a.res.note("the last line of the acks (line %d) is cut: whoever wrote it was stopped there; it is not counted", line)
		case err != nil:
			a.res.Acks.Unproven++
			a.res.find(Finding{Check: "acks", Line: line, Text: err.Error()})
		default:
			record.line = uint32(line)
			a.acks.add(record)
		}
		if ended {
			break
		}
	}
	a.acks.sort()
	a.in.Progress(Progress{"acks", done, done})
	return nil
}

// prover checks receipts, one signature for each frame.
type prover struct {
	keys   *receipt.KeySet
	proven map[epro.Digest]struct{} // of header hash, class, key and signature
}

// ack reads a line and proves its receipt. No error quotes the line.
func (p *prover) ack(text []byte) (*ackRecord, error) {
	var line Ack
	if err := json.Unmarshal(text, &line); err != nil {
		return nil, errors.New("the line is not the JSON of an acknowledgement")
	}
	sha, err := hex.DecodeString(line.SHA256)
	if err != nil || len(sha) != sha256.Size {
		return nil, errors.New("its sha256 is not 64 hexadecimal digits")
	}
	r, err := receipt.Parse(line.Receipt)
	if err != nil {
		return nil, fmt.Errorf("its receipt does not help: %w", err)
	}
	hash := r.Header.Hash()
	if err := p.check(r, hash); err != nil {
		return nil, fmt.Errorf("its receipt proves nothing: %w", err)
	}
	env, err := r.Fact()
	if err != nil {
		return nil, fmt.Errorf("its receipt does not help: %w", err)
	}
	id, err := epro.ParseUUID(line.ReportID)
	idOK := err == nil && id == env.ID || line.Derived && line.ReportID == ""
	if env.Kind != epro.KindReport || !idOK || line.PatientID != env.Subject || line.TrialID != env.Trial {
		return nil, errors.New("its receipt is for another report, participant or trial than the line names")
	}
	leaf := epro.Leaf(r.Envelope)
	return &ackRecord{
		run: r.Header.Run, n: r.Header.N, header: hash, sha: epro.Digest(sha), leaf: [8]byte(leaf[:8]), index: r.Index,
	}, nil
}

func (p *prover) check(r *receipt.Receipt, hash epro.Digest) error {
	b := append(append(make([]byte, 0, 32+1+8+64), hash[:]...), byte(r.Class))
	b = append(append(b, r.KeyID[:]...), r.Signature[:]...)
	signed := epro.Digest(sha256.Sum256(b))
	if _, ok := p.proven[signed]; ok {
		root, ok := journal.RootFromPath(epro.Leaf(r.Envelope), int(r.Index), int(r.Header.Count), r.Path)
		if ok && root == r.Header.Root {
			return nil
		}
	}
	if err := r.Check(p.keys); err != nil {
		return err
	}
	if len(p.proven) >= maxProven {
		clear(p.proven)
	}
	p.proven[signed] = struct{}{}
	return nil
}

func (a *audit) altered(at place, k *ackRecord, text string) {
	f := at.finding("acks", "%s", text)
	f.Line = int(k.line)
	index := int(k.index)
	f.Index = &index
	a.res.Altered++
	a.res.find(f)
}

// checkAckFrame compares the frame that an acknowledgement was signed for with
// the one in its place.
func (a *audit) checkAckFrame(at place, k *ackRecord, hash epro.Digest, f *journal.Frame, damaged bool) {
	if k.ok {
		return
	}
	same := hash == k.header && !damaged && int(k.index) < len(f.Entries)
	if same {
		leaf := epro.Leaf(f.Entries[k.index].Envelope)
		same = [8]byte(leaf[:8]) == k.leaf
	}
	if k.met && !same {
		return
	}
	k.met, k.ok = true, same
	if !same {
		a.altered(at, k, "the acknowledged report is no longer what its receipt was signed for: its frame was changed")
	}
}

// checkAckBody compares the words in the journal with those that were sent.
func (a *audit) checkAckBody(at place, k *ackRecord, e *journal.Entry) {
	if k.judged {
		return // the frame is there twice; the chain says so
	}
	k.judged = true
	switch {
	case e.Erased:
		a.res.Acks.Erased++
	case epro.Digest(sha256.Sum256(e.Body)) != k.sha:
		a.altered(at, k, "the acknowledged report's words in the journal are not the bytes that were sent")
	default:
		a.res.Acks.Found++
	}
}

// closeAcks names what never passed.
func (a *audit) closeAcks() {
	if a.acks == nil {
		return
	}
	for i := range a.acks.size {
		k := a.acks.at(uint32(i))
		if k.met {
			continue
		}
		a.res.Lost++
		n, index := k.n, int(k.index)
		a.res.find(Finding{
			Check: "acks", Run: k.run.String(), N: &n, Index: &index, Line: int(k.line),
			Text: "the acknowledged report is lost: the journal has no frame under its run and number",
		})
	}
}
