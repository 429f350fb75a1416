package main

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// A SQLite file and its log, made by hand so that each moment of a writer's work
// can be stopped at. What SQLite itself writes is read in test/agree.

const testPage = 512

func putVarint(b []byte, v uint64) []byte {
	if v >= 1<<7 {
		b = append(b, 0x80|byte(v>>7))
	}
	return append(b, byte(v&0x7f)) // below 2^14
}

// leafPage is a leaf of a table, head bytes in front of it.
func leafPage(head []byte, cells ...[]byte) []byte {
	p := make([]byte, testPage)
	copy(p, head)
	h := p[len(head):]
	h[0] = 13
	binary.BigEndian.PutUint16(h[3:], uint16(len(cells)))
	end := testPage
	for i, c := range cells {
		end -= len(c)
		copy(p[end:], c)
		binary.BigEndian.PutUint16(h[8+2*i:], uint16(end))
	}
	binary.BigEndian.PutUint16(h[5:], uint16(end))
	return p
}

func cell(id uint64, types []byte, values ...string) []byte {
	body := append([]byte{byte(len(types) + 1)}, types...)
	body = append(body, strings.Join(values, "")...)
	return append(putVarint(putVarint(nil, uint64(len(body))), id), body...)
}

// rowsPage is page 2: the table of frames with these rows, numbered from 1.
func rowsPage(rows ...string) []byte {
	var cells [][]byte
	for i, r := range rows {
		cells = append(cells, cell(uint64(i+1), []byte{0, byte(12 + 2*len(r))}, r))
	}
	return leafPage(nil, cells...)
}

func firstPage() []byte {
	head := make([]byte, 100)
	copy(head, fileMagic)
	binary.BigEndian.PutUint16(head[16:], testPage)
	head[18], head[19] = 2, 2
	binary.BigEndian.PutUint32(head[60:], userVersion)
	binary.BigEndian.PutUint32(head[68:], applicationID)
	n := putVarint(nil, uint64(13+2*len(framesTable)))
	types := append([]byte{13 + 2*5, 13 + 2*6, 13 + 2*6, 1}, n...)
	return leafPage(head, cell(1, types, "table", "frames", "frames", "\x02", framesTable))
}

// logFrame is a page in a log; a commit says how many pages the file then has.
type logFrame struct {
	page   uint32
	commit bool
	data   []byte
}

func logBytes(magic, salt uint32, frames ...logFrame) []byte {
	var order binary.ByteOrder = binary.LittleEndian
	if magic&1 == 1 {
		order = binary.BigEndian
	}
	u32 := binary.BigEndian.AppendUint32
	b := u32(u32(u32(u32(u32(u32(nil, magic), 3007000), testPage), 0), salt), salt+1)
	s1, s2 := walSum(order, 0, 0, b)
	b = u32(u32(b, s1), s2)
	for _, f := range frames {
		head := u32(u32(nil, f.page), 0)
		if f.commit {
			head[7] = 2
		}
		s1, s2 = walSum(order, s1, s2, head)
		s1, s2 = walSum(order, s1, s2, f.data)
		b = append(u32(u32(u32(u32(append(b, head...), salt), salt+1), s1), s2), f.data...)
	}
	return b
}

type files struct {
	t  *testing.T
	db string
	s  *sqliteFile
}

func handMade(t *testing.T, log []byte, rows ...string) *files {
	t.Helper()
	f := &files{t: t, db: filepath.Join(t.TempDir(), "journal.db")}
	f.write("", append(firstPage(), rowsPage(rows...)...))
	if log != nil {
		f.write("-wal", log)
	}
	s, err := openSQLite(f.db)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	f.s = s
	return f
}

// write changes a file in place, as a writer does.
func (f *files) write(suffix string, b []byte) {
	f.t.Helper()
	file, err := os.OpenFile(f.db+suffix, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		f.t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteAt(b, 0); err != nil {
		f.t.Fatal(err)
	}
}

func (f *files) want(rows ...string) {
	f.t.Helper()
	got, err := f.s.rows(0, 100, 1<<20)
	if err != nil {
		f.t.Fatal(err)
	}
	var texts []string
	for _, r := range got {
		if r.err != nil {
			f.t.Fatal(r.err)
		}
		texts = append(texts, string(r.frame))
	}
	if !slices.Equal(texts, rows) {
		f.t.Errorf("read %q, must be %q", texts, rows)
	}
}

const (
	little = 0x377f0682
	big    = 0x377f0683
)

func TestLogIsReadAsFarAsItIsCommitted(t *testing.T) {
	for _, magic := range []uint32{little, big} {
		committed := []logFrame{{2, true, rowsPage("a", "b")}, {1, false, firstPage()}, {2, true, rowsPage("a", "b", "c")}}
		more := append(slices.Clone(committed), logFrame{2, false, rowsPage("a", "b", "c", "not committed")})
		handMade(t, nil, "a").want("a")
		handMade(t, []byte{}, "a").want("a")
		handMade(t, logBytes(magic, 7, committed...), "a").want("a", "b", "c")
		handMade(t, logBytes(magic, 7, more...), "a").want("a", "b", "c")
		handMade(t, logBytes(magic, 7, committed...)[:40], "a").want("a")

		// Behind a log that began anew lie frames of the one before.
		old := logBytes(magic, 9, append(slices.Clone(more), logFrame{2, true, rowsPage("of an older log")})...)
		anew := logBytes(magic, 7, committed[:1]...)
		copy(old, anew)
		f := handMade(t, old, "a")
		f.want("a", "b")
		if f.s.wal.torn {
			t.Error("the rest of an older log was taken for damage")
		}

		torn := logBytes(magic, 7, committed...)
		torn[len(torn)-1] ^= 1
		f = handMade(t, torn, "a")
		f.want("a", "b")
		if !f.s.wal.torn {
			t.Error("a frame with a wrong sum was not noticed")
		}
		header := logBytes(magic, 7, committed...)
		header[13] ^= 1
		handMade(t, header, "a").want("a")
	}
}

// What a writer does between the reading of rows and the look at the log makes rows read from the main file worthless. Each case
// would give the rows of before, or a mixture, if nobody looked.
func TestChangesUnderneathAreNoticed(t *testing.T) {
	first := logBytes(little, 7, logFrame{1, true, firstPage()})
	for name, change := range map[string]func(f *files){
		"a commit is folded into the file": func(f *files) {
			f.write("-wal", logBytes(little, 7, logFrame{1, true, firstPage()}, logFrame{2, true, rowsPage("a", "b")}))
			f.write("", append(firstPage(), rowsPage("a", "b")...))
		},
		"folded, and the log begun anew": func(f *files) {
			f.write("", append(firstPage(), rowsPage("a", "b")...))
			f.write("-wal", logBytes(little, 8, logFrame{1, true, firstPage()}))
		},
		"folded, and the log emptied": func(f *files) {
			f.write("", append(firstPage(), rowsPage("a", "b")...))
			if err := os.Truncate(f.db+"-wal", 0); err != nil {
				f.t.Fatal(err)
			}
		},
		"folded, and the log deleted": func(f *files) {
			f.write("", append(firstPage(), rowsPage("a", "b")...))
			if err := os.Remove(f.db + "-wal"); err != nil {
				f.t.Fatal(err)
			}
		},
		"the log deleted, and another one made": func(f *files) {
			if err := os.Remove(f.db + "-wal"); err != nil {
				f.t.Fatal(err)
			}
			f.write("-wal", logBytes(little, 8, logFrame{2, true, rowsPage("a", "b")}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := handMade(t, first, "a")
			times := 0
			f.s.between = func() {
				if times++; times == 1 {
					change(f)
				}
			}
			f.want("a", "b")
			if times < 2 {
				t.Error("it did not read again")
			}
		})
	}
	t.Run("a commit of pages that were not read from the file", func(t *testing.T) {
		f := handMade(t, logBytes(little, 7, logFrame{2, true, rowsPage("a")}), "old")
		times := 0
		f.s.between = func() {
			times++
			f.write("-wal", logBytes(little, 7, logFrame{2, true, rowsPage("a")}, logFrame{2, true, rowsPage("a", "b")}))
		}
		f.want("a")
		if times != 1 {
			t.Errorf("it read %d times: a busy writer would hold it up for ever", times)
		}
		f.want("a", "b")
	})
}

func TestPagesThatLeadInCirclesEnd(t *testing.T) {
	inner := make([]byte, testPage)
	inner[0] = 5
	binary.BigEndian.PutUint32(inner[8:], 2) // its only child is itself
	overflow := leafPage(nil, append(putVarint(putVarint(nil, 10000), 1), make([]byte, 480)...)[:300])
	for name, page := range map[string][]byte{"inner page": inner, "overflow": overflow, "zeros": make([]byte, testPage), "ones": []byte(strings.Repeat("\xff", testPage))} {
		t.Run(name, func(t *testing.T) {
			f := handMade(t, nil, "a")
			f.write("", append(firstPage(), page...))
			done := make(chan bool, 1)
			go func() {
				rows, err := f.s.rows(0, 100, 1<<20)
				done <- err != nil || len(rows) == 1 && rows[0].err != nil
			}()
			select {
			case found := <-done:
				if !found {
					t.Error("a page that is none was read as one")
				}
			case <-time.After(20 * time.Second):
				t.Error("it does not end")
			}
		})
	}
}
