package load

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/tidegate/tidegate/internal/receipt"
)

// bulkLines reads the answer to an NDJSON request: for every frame a line with
// what its receipts share, and a line for each line that was sent.
type bulkLines struct {
	run     *run
	which   []int    // phones by line
	answers []answer // by line

	frame  int
	shared receipt.Batch
	lines  []receipt.Line // of that frame, in order
	at     []int          // their places in which
}

type bulkLine struct {
	Frame    int            `json:"frame"`
	Proof    *receipt.Batch `json:"proof"` // only in a frame's own line
	Line     int            `json:"line"`
	Status   string         `json:"status"`
	Salt     string         `json:"salt"`
	Envelope string         `json:"envelope"`
	said
}

// read reads to the end. Lines whose answer is missing or makes no sense keep
// an empty answer. The error ends the run.
func (b *bulkLines) read(ctx context.Context, body io.Reader) error {
	in := bufio.NewScanner(body)
	in.Buffer(make([]byte, 0, 4<<10), maxAnswer)
	for in.Scan() {
		var l bulkLine
		if err := json.Unmarshal(in.Bytes(), &l); err != nil {
			b.run.noteReceipt(fmt.Errorf("a line of the answer is not JSON"))
			continue
		}
		if l.Proof != nil {
			if err := b.endFrame(ctx); err != nil {
				return err
			}
			b.frame, b.shared = l.Frame, *l.Proof
			continue
		}
		if l.Line >= 1 && l.Line <= len(b.which) {
			b.line(&l)
		}
	}
	// An answer that was cut leaves its last lines unknown.
	return b.endFrame(ctx)
}

func (b *bulkLines) line(l *bulkLine) {
	k := l.Line - 1
	a := answer{
		result: resultUnknown, status: http.StatusOK, what: lineStatus(l.Status),
		retryAfter: time.Duration(min(max(l.RetryAfter, 0), 1<<20)) * time.Second,
	}
	switch {
	case l.Status == "accepted" && l.Frame == b.frame:
		if own, err := receipt.DecodeLine(l.Salt, l.Envelope); err == nil {
			b.lines = append(b.lines, own)
			b.at = append(b.at, k)
		}
		a.what = wrongReceipt // until its frame's end
	case l.Status == "refused" && l.Accepted == false:
		a.result = resultRefused
	case l.Status == "rejected":
		a.result = resultFailed
	}
	b.answers[k] = a
}

// endFrame gives the lines of the frame their receipts, checks each and writes
// the acknowledgements.
func (b *bulkLines) endFrame(ctx context.Context) error {
	lines, at := b.lines, b.at
	b.lines, b.at = nil, nil
	if len(lines) == 0 {
		return nil
	}
	receipts, err := b.shared.Receipts(lines)
	if err != nil {
		b.run.noteReceipt(err)
		return nil
	}
	var out []byte
	var proven []int
	for j, r := range receipts {
		rep := b.run.phones.report(b.which[at[j]])
		if err := b.run.check.check(ctx, r, &rep); err != nil {
			b.run.noteReceipt(err)
			continue
		}
		out = rep.appendAck(out, b.run.opts.Trial, r.String())
		proven = append(proven, at[j])
	}
	if err := b.run.acks.write(out); err != nil {
		return err
	}
	for _, k := range proven {
		b.answers[k].result, b.answers[k].what = resultAcked, lineStatus("accepted")
	}
	return nil
}
