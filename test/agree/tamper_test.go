package agree_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/journal/sqlitejournal"
)

// tampered is a closed journal of twelve frames, to be copied and harmed.
func tampered(t *testing.T) (*folder, []journal.Sealed) {
	t.Helper()
	f := newFolder(t)
	j := f.open(t, sqlitejournal.Options{})
	defer j.Close()
	var frames []journal.Sealed
	for i := range 12 {
		var list []epro.Fact
		for range 1 + i%3 {
			list = append(list, f.writer.fact(t, body(f.writer.facts, 10)))
		}
		s, acks := f.writer.seal(t, list...)
		if _, err := j.Append(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		f.writer.acknowledge(t, acks)
		frames = append(frames, s)
	}
	return f, frames
}

func TestTamperedRows(t *testing.T) {
	f, _ := tampered(t)
	f.mustPass(t, "frames 12")
	free := "DROP INDEX frames_run" // so that the file takes what a journal never would
	for name, c := range map[string]struct {
		want string
		sql  []string
	}{
		"a row in the middle taken away": {"frames 5 to 5 are not there", []string{"DELETE FROM frames WHERE position=5"}},
		"the first row taken away":       {"frames 1 to 1 are not there", []string{"DELETE FROM frames WHERE position=1"}},
		"taken away and closed up":       {"number 5 of its run, must be 4", []string{"DELETE FROM frames WHERE position=5", "UPDATE frames SET position=position-1 WHERE position>5"}},
		"the tail cut off":               {"lost 5 altered 0 doubled 0", []string{"DELETE FROM frames WHERE position>10"}},
		"everything taken away":          {"lost 24 altered 0 doubled 0", []string{"DELETE FROM frames"}},
		"two rows swapped": {"number 3 of its run, must be 2", []string{
			"UPDATE frames SET position=100 WHERE position=3", "UPDATE frames SET position=3 WHERE position=4", "UPDATE frames SET position=4 WHERE position=100",
		}},
		"a row twice":         {"the same frame as 2", []string{free, "INSERT INTO frames (frame) SELECT frame FROM frames WHERE position=2"}},
		"a row cut short":     {"frame 7: the body of fact 0", []string{"UPDATE frames SET frame=substr(frame, 1, length(frame)-1) WHERE position=7"}},
		"a row of two bytes":  {"frame 7: it is not a frame", []string{"UPDATE frames SET frame=x'0102' WHERE position=7"}},
		"an empty row":        {"frame 7: it is not a frame", []string{"UPDATE frames SET frame=x'' WHERE position=7"}},
		"a row too long":      {"frame 12: a row of 17000006 bytes", []string{"UPDATE frames SET frame=zeroblob(17000000) WHERE position=12"}},
		"another table":       {"is not declared", []string{"ALTER TABLE frames RENAME COLUMN frame TO f"}},
		"no table":            {"there is no table", []string{"DROP TABLE frames"}},
		"a negative position": {"are not there", []string{"UPDATE frames SET position=-5 WHERE position=3"}},
	} {
		t.Run(name, func(t *testing.T) {
			c2 := f.copy(t)
			c2.sql(t, c.sql...)
			c2.mustFail(t, c.want)
		})
	}
}

// Every byte of a frame means something: changing any is found. With a stride in the short run.
func TestTamperedBytesOfAFrame(t *testing.T) {
	f, frames := tampered(t)
	c := f.copy(t)
	frame := frames[4].Bytes
	for i := 0; i < len(frame); i += 13 {
		b := bytes.Clone(frame)
		b[i] ^= 1 << (i % 8)
		c.sql(t, "DROP INDEX IF EXISTS frames_run", fmt.Sprintf("UPDATE frames SET frame=x'%x' WHERE position=5", b))
		if status, out := c.run(t); status != 1 || !strings.Contains(out, "frame 5") && !strings.Contains(out, "frame 6") {
			t.Errorf("byte %d of the frame: status %d\n%s", i, status, out)
		}
	}
	c.sql(t, fmt.Sprintf("UPDATE frames SET frame=x'%x' WHERE position=5", frame))
	c.mustPass(t)
}

// A forger who changes a report and computes every later hash anew makes a journal without a fault: receipts find him.
func TestForgerWhoRecomputesAllIsFoundByReceipts(t *testing.T) {
	f, frames := tampered(t)
	var statements []string
	var prev epro.Digest
	for i, s := range frames {
		frame, err := journal.DecodeFrame(s.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		leaves := make([]epro.Digest, len(frame.Entries))
		for k := range frame.Entries {
			e := &frame.Entries[k]
			if i == 5 && k == 0 {
				fact, err := e.Fact()
				if err != nil {
					t.Fatal(err)
				}
				e.Body = bytes.Replace(bytes.Clone(e.Body), []byte(`"comments":"x`), []byte(`"comments":"y`), 1)
				fact.BodyDigest = epro.BodyDigest(e.Salt, e.Body)
				if e.Envelope, err = fact.AppendBinary(nil); err != nil {
					t.Fatal(err)
				}
			}
			leaves[k] = epro.Leaf(e.Envelope)
		}
		frame.Header.Prev = prev
		forged, err := journal.Seal(frame.Header, frame.Entries, leaves)
		if err != nil {
			t.Fatal(err)
		}
		prev = forged.Hash
		statements = append(statements, fmt.Sprintf("UPDATE frames SET frame=x'%x' WHERE position=%d", forged.Bytes, i+1))
	}
	c := f.copy(t)
	c.sql(t, append([]string{"DROP INDEX frames_run"}, statements...)...)
	status, out := c.run(t)
	if status != 1 || !strings.Contains(out, "faults 0") || strings.Contains(out, "lost 0 altered 0") {
		t.Errorf("status %d, must be 1, with no fault in the journal itself but reports lost:\n%s", status, out)
	}
}

func TestTamperedAcknowledgements(t *testing.T) {
	f, _ := tampered(t)
	acks, err := os.ReadFile(f.acks)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(acks), "\n")
	edit := func(from, to string) string {
		s := strings.Replace(string(acks), from, to, 1)
		if s == string(acks) {
			t.Fatalf("nothing to replace: %q", from)
		}
		return s
	}
	for name, c := range map[string]struct{ want, acks string }{
		"an acknowledgement of nothing": {"lost 1", edit(`"patientId":"P-000003"`, `"patientId":"P-999999"`)},
		"other bytes were sent":         {"altered 1", edit(`"sha256":"`, `"sha256":"00`)},
		"a receipt of another report":   {"unproven 1", strings.Replace(lines[0], receiptOf(lines[0]), receiptOf(lines[1]), 1)},
		"a receipt that is none":        {"unproven 1", edit(`"receipt":"receipt1.`, `"receipt":"receipt2.`)},
		"no receipt":                    {"unproven 1", strings.Replace(lines[0], receiptOf(lines[0]), "", 1)},
	} {
		t.Run(name, func(t *testing.T) {
			c2 := f.copy(t)
			c2.acks = c2.dir + "/acks"
			write(t, c2.acks, []byte(c.acks))
			c2.mustFail(t, c.want)
		})
	}
	c := f.copy(t)
	c.acks = c.dir + "/acks"
	write(t, c.acks, append(bytes.Clone(acks), lines[0][:40]...))
	c.mustPass(t, "the last line of the acknowledgements has no end")
}

func receiptOf(line string) string {
	_, rest, _ := strings.Cut(line, `"receipt":"`)
	text, _, _ := strings.Cut(rest, `"`)
	return text
}

// Damage to the files themselves: verify2 never crashes and never calls a journal whole from which something is missing.
func TestDamagedFiles(t *testing.T) {
	f := newFolder(t)
	j := f.open(t, sqlitejournal.Options{CheckpointBytes: 1 << 40})
	f.add(t, j, 30, 2, 700)
	killed := f.copy(t)
	j.Close()
	rng := rand.New(rand.NewPCG(7, 7)) //nolint:gosec // places to damage
	harm := func(c *folder, path string) {
		t.Helper()
		orig, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for range 60 {
			b := bytes.Clone(orig)
			for range 1 + rng.IntN(3) {
				b[rng.IntN(len(b))] ^= byte(1 + rng.IntN(255))
			}
			if rng.IntN(6) == 0 {
				b = b[:rng.IntN(len(b))]
			}
			write(t, path, b)
			// Whether it passes depends on what was hit; if it does, every acknowledged byte was there, which is what passing means.
			if status, out := c.run(t); status != 0 {
				found++
			} else if !strings.Contains(out, "lost 0 altered 0 doubled 0") {
				t.Errorf("passed with a finding:\n%s", out)
			}
		}
		write(t, path, orig)
		c.mustPass(t)
		t.Logf("%s: %d of 60 damages found", path, found)
		if found < 20 {
			t.Errorf("%s: only %d of 60 damages found", path, found)
		}
	}
	closed := f.copy(t)
	harm(closed, closed.journal())
	harm(killed, killed.journal()+"-wal")
}
