package app

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tidegate/tidegate/internal/receipt"
)

type verifyReceiptCmd struct {
	File   string `arg:"" help:"File with the receipt's text, or - for standard input. The JSON answer to a report will do too, or with --line the NDJSON answer to many."`
	Line   int    `help:"In an NDJSON answer: the report whose receipt to check, by its line in the request, from 1 on."`
	Keys   string `help:"What GET /v1/keys answered, or tidegate keys list --json printed." required:"" type:"path"`
	Root   string `help:"Fingerprint of the root key, as you got it when the trial began." required:""`
	Report string `help:"File with the report's exact bytes as sent (with --line, the request will do): proves that this is what was received." type:"path"`
	JSON   bool   `help:"Print JSON."`
}

// Help shows an example.
func (verifyReceiptCmd) Help() string {
	return help(`Needs no server and no data folder. Exit code 0: the receipt proves what it says; 1: it does not.
In the NDJSON answer to many reports the receipts share what they can: --line N puts one together.`, "tidegate verify receipt receipt.txt --keys keys.json --root 1f0c… --report report.json")
}

// Bounds of what is read: an answer with one receipt is far smaller than the
// first, and one line of an answer to many than the second.
const (
	maxReceiptFile = 256 << 20
	maxAnswerLine  = 1 << 20
)

// Run checks one receipt.
func (c verifyReceiptCmd) Run(con *console) error {
	if c.Line < 0 {
		return usageError{errors.New("--line counts from 1 on")}
	}
	keysJSON, err := os.ReadFile(filepath.Clean(c.Keys))
	if err != nil {
		return fmt.Errorf("keys: %w", err)
	}
	keys, err := receipt.ParseKeys(keysJSON, c.Root)
	if err != nil {
		return err
	}
	r, err := c.read(con)
	if err != nil {
		return err
	}
	if err := r.Check(keys); err != nil {
		return err
	}
	matches := ""
	if c.Report != "" {
		body, err := os.ReadFile(filepath.Clean(c.Report))
		if err != nil {
			return fmt.Errorf("report: %w", err)
		}
		if !r.MatchesBody(body) && !c.matchesLine(r, body) {
			return errors.New("the receipt is genuine, but it was not given for these bytes: the report was changed, or it is another one")
		}
		matches = "these are the bytes that were received"
	}
	return c.print(con, r, matches)
}

// matchesLine says whether the line of the request is what was received.
func (c verifyReceiptCmd) matchesLine(r *receipt.Receipt, request []byte) bool {
	if c.Line == 0 {
		return false
	}
	lines := bytes.Split(request, []byte("\n"))
	return c.Line <= len(lines) && r.MatchesBody(lines[c.Line-1])
}

func (c verifyReceiptCmd) read(con *console) (*receipt.Receipt, error) {
	in := con.in
	if c.File != "-" {
		f, err := os.Open(filepath.Clean(c.File))
		if err != nil {
			return nil, fmt.Errorf("receipt: %w", err)
		}
		defer f.Close() //nolint:errcheck // only read
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxReceiptFile))
	if err != nil {
		return nil, fmt.Errorf("receipt: %w", err)
	}
	text := strings.TrimSpace(string(b))
	var answer struct {
		Receipt string `json:"receipt"`
	}
	switch {
	case isBulkAnswer(b) && c.Line == 0:
		return nil, errors.New("this is an answer to many reports, with a receipt for each: say which one with --line N, the report's line in the request")
	case isBulkAnswer(b):
		return bulkReceipt(b, c.Line)
	case c.Line != 0:
		return nil, errors.New("--line is for the NDJSON answer to many reports, and this is another file: leave it out")
	case strings.HasPrefix(text, "{") && json.Unmarshal(b, &answer) == nil && answer.Receipt != "":
		text = answer.Receipt
	}
	return receipt.Parse(text)
}

// answerLine is a line of the answer to many reports: what the receipts of
// neighbours share, or what became of one report.
type answerLine struct {
	Frame    int            `json:"frame"`
	Proof    *receipt.Batch `json:"proof"`
	Line     int            `json:"line"`
	Status   string         `json:"status"`
	Salt     string         `json:"salt"`
	Envelope string         `json:"envelope"`
}

func isBulkAnswer(b []byte) bool {
	first, _, _ := bytes.Cut(bytes.TrimLeft(b, " \r\n"), []byte("\n"))
	var l answerLine
	return json.Unmarshal(first, &l) == nil && (l.Proof != nil || l.Line > 0)
}

// bulkReceipt is the receipt of one line of an answer. It is put together with
// its neighbours: the proof is for all of them.
func bulkReceipt(answer []byte, line int) (*receipt.Receipt, error) {
	var shared *receipt.Batch
	var lines []receipt.Line
	frame, at := 0, -1
	in := bufio.NewScanner(bytes.NewReader(answer))
	in.Buffer(make([]byte, 0, 4<<10), maxAnswerLine)
	for n := 1; in.Scan(); n++ {
		var l answerLine
		if len(bytes.TrimSpace(in.Bytes())) == 0 {
			continue
		}
		if err := json.Unmarshal(in.Bytes(), &l); err != nil {
			return nil, fmt.Errorf("line %d of the answer is not JSON: the file was cut or changed", n)
		}
		switch {
		case l.Proof != nil && at >= 0:
			return receiptAt(shared, lines, at)
		case l.Proof != nil:
			shared, frame, lines = l.Proof, l.Frame, nil
			continue
		case l.Line == line && l.Status != "accepted":
			return nil, fmt.Errorf("report %d has no receipt: its answer was %q", line, lineStatus(l.Status))
		case l.Status != "accepted":
			continue
		case shared == nil || l.Frame != frame:
			return nil, fmt.Errorf("line %d of the answer is of a frame whose proof is not before it: the file was cut or changed", n)
		}
		own, err := receipt.DecodeLine(l.Salt, l.Envelope)
		if err != nil {
			return nil, fmt.Errorf("line %d of the answer is damaged", n)
		}
		if l.Line == line {
			at = len(lines)
		}
		lines = append(lines, own)
	}
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if at < 0 {
		return nil, fmt.Errorf("the answer has no line for report %d", line)
	}
	return receiptAt(shared, lines, at)
}

func receiptAt(shared *receipt.Batch, lines []receipt.Line, at int) (*receipt.Receipt, error) {
	all, err := shared.Receipts(lines)
	if err != nil {
		return nil, err
	}
	return all[at], nil
}

// lineStatus is a line's status if it is one of the words that there are:
// nothing else of a file is repeated.
func lineStatus(s string) string {
	switch s {
	case "refused", "rejected", "unknown":
		return s
	}
	return "another"
}

func (c verifyReceiptCmd) print(con *console, r *receipt.Receipt, matches string) error {
	f, err := r.Fact()
	if err != nil {
		return err
	}
	if c.JSON {
		return con.printJSON(map[string]any{
			"valid": true, "kind": f.Kind.String(), "trialId": f.Trial, "patientId": f.Subject, "reportId": f.ID,
			"completedAt": f.OccurredAt, "receivedAt": f.ReceivedAt, "committedAt": r.Header.CommittedAt(), "durability": r.Class.String(),
			"keyId": r.KeyID.String(), "run": r.Header.Run.String(), "n": r.Header.N, "index": r.Index, "reportMatches": matches != "",
		})
	}
	con.printf("valid: a certified key signed that this fact is durable (%s)\n", r.Class)
	con.printf("%-12s %s\n", "fact", f.Kind)
	for _, line := range [][2]string{
		{"trial", f.Trial},
		{"patient", f.Subject},
		{"report", f.ID.String()},
		{"by", f.Actor.Type.String() + " " + f.Actor.ID + " " + f.Actor.Device},
		{"completedAt", f.OccurredAt.Format(time.RFC3339Nano)},
		{"receivedAt", f.ReceivedAt.Format(time.RFC3339Nano)},
		{"committedAt", r.Header.CommittedAt().Format(time.RFC3339Nano)},
		{"frame", fmt.Sprintf("run %s n %d, fact %d of %d", r.Header.Run, r.Header.N, r.Index+1, r.Header.Count)},
		{"key", r.KeyID.String()},
	} {
		con.printf("%-12s %s\n", line[0], line[1])
	}
	if matches != "" {
		con.printf("%-12s %s\n", "bytes", matches)
	} else {
		con.printf("%-12s not compared: give --report FILE with what was sent\n", "bytes")
	}
	return nil
}
