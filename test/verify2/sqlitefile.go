package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"time"
)

const (
	fileMagic     = "SQLite format 3\x00"
	applicationID = 0x54474a31 // "TGJ1"
	userVersion   = 1
	framesTable   = "CREATE TABLE frames (position INTEGER PRIMARY KEY, frame BLOB NOT NULL) STRICT"
	maxPayload    = maxFrameBytes + 1024 // of a row: one frame and a little
	maxDepth      = 20                   // of a table's tree: more would be a loop
)

// sqliteFile reads the rows of one table of a SQLite database in WAL mode, for
// reading only and without SQLite's locks.
type sqliteFile struct {
	db       *os.File
	wal      *wal
	pageSize int
	usable   int                 // bytes of a page that hold content
	fromDB   map[uint32]struct{} // pages of this chunk that came from the main file
	between  func()              // tests: runs between reading rows and looking whether anything moved
}

// row is one row of the table of frames.
type row struct {
	position int64
	frame    []byte
	err      error // why this row cannot be read, while those behind it can
}

var errEnough = errors.New("enough rows")

func openSQLite(path string) (*sqliteFile, error) {
	db, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	h := make([]byte, 100)
	if _, err := db.ReadAt(h, 0); err != nil {
		db.Close()
		return nil, fmt.Errorf("%s has no header of a SQLite file: %w", path, err)
	}
	size := int(binary.BigEndian.Uint16(h[16:]))
	if size == 1 {
		size = 65536
	}
	s := &sqliteFile{db: db, pageSize: size, usable: size - int(h[20]), wal: &wal{path: path + "-wal", pageSize: size}}
	switch {
	case string(h[:16]) != fileMagic:
		err = errors.New("is not a SQLite file")
	case size < 512 || size&(size-1) != 0 || s.usable < 480:
		err = errors.New("has an impossible page size")
	case h[18] != 2 || h[19] != 2:
		err = errors.New("is not in WAL mode, as a journal always is")
	case binary.BigEndian.Uint32(h[68:]) != applicationID:
		err = errors.New("is another program's database: it has not a journal's application id")
	case binary.BigEndian.Uint32(h[60:]) != userVersion:
		err = fmt.Errorf("has format version %d, this verifier reads %d", binary.BigEndian.Uint32(h[60:]), userVersion)
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("%s %w", path, err)
	}
	return s, nil
}

func (s *sqliteFile) close() {
	s.db.Close()
	if s.wal.file != nil {
		s.wal.file.Close()
	}
}

// rows returns rows behind a position, about as many as the limits say, as they
// were at one moment. When the files change under it, it reads again. With an
// error it returns the rows in front of what cannot be read.
func (s *sqliteFile) rows(after int64, maxRows, maxBytes int) ([]row, error) {
	const tries = 500
	for try := range tries {
		out, err := s.rowsOnce(after, maxRows, maxBytes)
		if !errors.Is(err, errChanged) {
			return out, err
		}
		time.Sleep(time.Duration(min(try, 20)) * time.Millisecond)
	}
	return nil, fmt.Errorf("%w, %d times in a row: try again when the server is less busy", errChanged, tries)
}

func (s *sqliteFile) rowsOnce(after int64, maxRows, maxBytes int) ([]row, error) {
	if _, err := s.wal.follow(); err != nil {
		return nil, err
	}
	mark := len(s.wal.log)
	s.fromDB = map[uint32]struct{}{}
	var out []row
	bytes := 0
	root, err := s.framesRoot()
	if err == nil {
		err = s.walk(root, after, func(r row) error {
			out, bytes = append(out, r), bytes+len(r.frame)
			if len(out) >= maxRows || bytes >= maxBytes {
				return errEnough
			}
			return nil
		})
	}
	if s.between != nil {
		s.between()
	}
	// Whatever was read, an error too, counts only if nothing moved meanwhile.
	restarted, err2 := s.wal.follow()
	if err2 != nil {
		return nil, err2
	}
	if restarted {
		return nil, errChanged
	}
	for _, page := range s.wal.log[mark:] {
		if _, ok := s.fromDB[page]; ok {
			return nil, errChanged
		}
	}
	if errors.Is(err, errEnough) {
		err = nil
	}
	return out, err
}

func (s *sqliteFile) page(n uint32) ([]byte, error) {
	p, err := s.wal.page(n)
	if p != nil || err != nil {
		return p, err
	}
	if n == 0 {
		return nil, errors.New("a pointer to page 0")
	}
	s.fromDB[n] = struct{}{}
	p = make([]byte, s.pageSize)
	if _, err := s.db.ReadAt(p, int64(n-1)*int64(s.pageSize)); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("page %d lies behind the end of the file", n)
		}
		return nil, err
	}
	return p, nil
}

// framesRoot finds the root page of the table of frames in the schema.
func (s *sqliteFile) framesRoot() (uint32, error) {
	var root uint32
	err := s.cells(1, 0, math.MinInt64, math.MaxInt64, func(_ int64, payload func() ([]byte, error)) error {
		p, err := payload()
		if err != nil {
			return err
		}
		cols, err := columns(p)
		if err != nil {
			return err
		}
		if len(cols) != 5 || string(cols[0].blob) != "table" || string(cols[1].blob) != "frames" {
			return nil
		}
		if string(cols[4].blob) != framesTable {
			return errors.New("the table of frames is not declared as docs/format.md says")
		}
		root = uint32(cols[3].num)
		return nil
	})
	if err == nil && root == 0 {
		err = errors.New("there is no table of frames")
	}
	return root, err
}

func (s *sqliteFile) walk(root uint32, after int64, fn func(row) error) error {
	return s.cells(root, 0, after, math.MaxInt64, func(id int64, payload func() ([]byte, error)) error {
		p, err := payload()
		if errors.Is(err, errChanged) {
			return err
		}
		if err != nil {
			return fn(row{position: id, err: err})
		}
		cols, err := columns(p)
		if err != nil || len(cols) != 2 || !cols[0].null || cols[1].text || cols[1].null || cols[1].isNum {
			return fn(row{position: id, err: errors.New("its row is not a position and a blob")})
		}
		return fn(row{position: id, frame: cols[1].blob})
	})
}

// cells calls fn for every cell of a table's tree with after < rowid ≤ upTo, in
// order. A tree that is out of order is an error.
func (s *sqliteFile) cells(n uint32, depth int, after, upTo int64, fn func(int64, func() ([]byte, error)) error) error {
	if depth > maxDepth {
		return fmt.Errorf("page %d: the tree is deeper than any can be", n)
	}
	p, err := s.page(n)
	if err != nil {
		return err
	}
	head := 0
	if n == 1 {
		head = 100
	}
	kind, count := p[head], int(binary.BigEndian.Uint16(p[head+3:]))
	pointers := head + 8
	if kind == 5 {
		pointers = head + 12
	}
	if kind != 5 && kind != 13 || pointers+2*count > s.usable {
		return fmt.Errorf("page %d: not a page of a table", n)
	}
	last := int64(math.MinInt64)
	for i := range count {
		at := int(binary.BigEndian.Uint16(p[pointers+2*i:]))
		if at < pointers+2*count || at+4 > s.usable {
			return fmt.Errorf("page %d: cell %d lies outside the page", n, i)
		}
		cell := p[at:s.usable]
		if kind == 5 {
			key, k := varint(cell[4:])
			if k == 0 || i > 0 && int64(key) <= last || int64(key) > upTo {
				return fmt.Errorf("page %d: its keys are out of order", n)
			}
			if int64(key) > after {
				if err := s.cells(binary.BigEndian.Uint32(cell), depth+1, max(after, last), int64(key), fn); err != nil {
					return err
				}
			}
			last = int64(key)
			continue
		}
		size, k1 := varint(cell)
		id, k2 := varint(cell[k1:])
		if k1 == 0 || k2 == 0 || i > 0 && int64(id) <= last || int64(id) > upTo {
			return fmt.Errorf("page %d: its rows are out of order", n)
		}
		last = int64(id)
		if int64(id) <= after {
			continue
		}
		err := fn(int64(id), func() ([]byte, error) { return s.payload(cell[k1+k2:], size) })
		if err != nil {
			return err
		}
	}
	if kind == 5 {
		return s.cells(binary.BigEndian.Uint32(p[head+8:]), depth+1, max(after, last), upTo, fn)
	}
	return nil
}

// payload gathers a cell's content from its page and its overflow pages.
func (s *sqliteFile) payload(cell []byte, size uint64) ([]byte, error) {
	if size > maxPayload {
		return nil, fmt.Errorf("a row of %d bytes, more than any frame", size)
	}
	total, local := int(size), int(size)
	if most := s.usable - 35; total > most {
		least := (s.usable-12)*32/255 - 23
		if local = least + (total-least)%(s.usable-4); local > most {
			local = least
		}
	}
	if local > len(cell) || local < total && local+4 > len(cell) {
		return nil, errors.New("a row runs over its page's end")
	}
	out := append(make([]byte, 0, total), cell[:local]...)
	for next := local; len(out) < total; {
		page := binary.BigEndian.Uint32(cell[next:])
		p, err := s.page(page)
		if err != nil {
			return nil, err
		}
		cell, next = p, 0
		out = append(out, p[4:4+min(s.usable-4, total-len(out))]...)
	}
	return out, nil
}

// column is one value of a record.
type column struct {
	null, text, isNum bool
	num               int64
	blob              []byte // bytes of a text or a blob
}

// columns takes a record apart.
func columns(p []byte) ([]column, error) {
	bad := errors.New("not a record")
	size, k := varint(p)
	if k == 0 || size < uint64(k) || size > uint64(len(p)) {
		return nil, bad
	}
	types, data := p[k:size], p[size:]
	var out []column
	for len(types) > 0 {
		t, k := varint(types)
		if k == 0 {
			return nil, bad
		}
		types = types[k:]
		var c column
		n := 0
		switch {
		case t == 0:
			c.null = true
		case t <= 6:
			n = [...]int{0, 1, 2, 3, 4, 6, 8}[t]
			c.isNum = true
		case t == 8 || t == 9:
			c.isNum, c.num = true, int64(t-8)
		case t >= 12 && t/2-6 <= uint64(len(data)):
			n, c.text = int(t/2-6), t%2 == 1
		default:
			return nil, bad
		}
		if n > len(data) {
			return nil, bad
		}
		if c.isNum && n > 0 {
			for i, b := range data[:n] {
				if i == 0 {
					c.num = int64(int8(b))
				} else {
					c.num = c.num<<8 | int64(b)
				}
			}
		} else {
			c.blob = data[:n]
		}
		data = data[n:]
		out = append(out, c)
	}
	if len(data) != 0 {
		return nil, bad
	}
	return out, nil
}

// varint reads SQLite's variable-length integer and says how many bytes it has,
// 0 when it is cut short.
func varint(b []byte) (uint64, int) {
	var v uint64
	for i := 0; i < 9 && i < len(b); i++ {
		if i == 8 {
			return v<<8 | uint64(b[i]), 9
		}
		v = v<<7 | uint64(b[i]&0x7f)
		if b[i] < 0x80 {
			return v, i + 1
		}
	}
	return 0, 0
}
