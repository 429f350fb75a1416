package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
)

const (
	walHeaderBytes = 32
	walFrameBytes  = 24 // in front of each page
)

// errChanged says that the files changed while they were read: read again.
var errChanged = errors.New("the journal's files changed while they were read")

// wal follows a SQLite write-ahead log that another process may be writing. It
// knows the log's committed frames up to some point and can be carried on.
//
// Everything rests on one fact: pages reach the main file only from committed
// frames of the log, and the log begins anew only under another salt. So a page
// read from the main file is the page of this moment in the log unless a frame
// committed later holds it, or the log began anew meanwhile.
type wal struct {
	path     string
	file     *os.File
	pageSize int

	header  []byte // as read, nil when there is no valid log
	order   binary.ByteOrder
	s1, s2  uint32           // running check sum behind the last good frame
	next    int64            // where the next frame begins
	pending []walPage        // since the last commit
	index   map[uint32]int64 // page → where its newest committed frame begins
	log     []uint32         // pages of committed frames, in order
	torn    bool             // a frame of this log's salt, with a wrong sum, lies behind the last good one
}

type walPage struct {
	page uint32
	at   int64
}

func (w *wal) reset(header []byte) {
	w.header, w.next, w.torn = header, walHeaderBytes, false
	w.pending, w.log, w.index = nil, nil, map[uint32]int64{}
}

// follow reads what was committed since the last call. restarted says that the
// log is another one than before, so that nothing known about it holds.
func (w *wal) follow() (restarted bool, err error) {
	header, err := w.readHeader()
	if err != nil {
		return false, err
	}
	if w.index == nil || !bytes.Equal(header, w.header) {
		restarted = w.index != nil
		w.reset(header)
		if header != nil {
			w.order = binary.LittleEndian
			if header[3]&1 == 1 {
				w.order = binary.BigEndian
			}
			w.s1, w.s2 = binary.BigEndian.Uint32(header[24:]), binary.BigEndian.Uint32(header[28:])
		}
	}
	if header == nil {
		return restarted, nil
	}
	return restarted, w.readFrames()
}

// readHeader returns the log's header, or nil when there is no log: no file, an
// empty one, or one that begins with nothing valid.
func (w *wal) readHeader() ([]byte, error) {
	// A server that stops deletes the log, and the next one makes another file.
	info, err := os.Stat(w.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if w.file != nil {
		if mine, e := w.file.Stat(); err != nil || e != nil || !os.SameFile(info, mine) {
			w.file.Close()
			w.file = nil
		}
	}
	if err != nil {
		return nil, nil
	}
	if w.file == nil {
		if w.file, err = os.Open(w.path); err != nil {
			w.file = nil
			if errors.Is(err, fs.ErrNotExist) {
				return nil, nil
			}
			return nil, err
		}
	}
	h := make([]byte, walHeaderBytes)
	if _, err := w.file.ReadAt(h, 0); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		return nil, err
	}
	magic := binary.BigEndian.Uint32(h)
	if magic != 0x377f0682 && magic != 0x377f0683 || binary.BigEndian.Uint32(h[4:]) != 3007000 || int(binary.BigEndian.Uint32(h[8:])) != w.pageSize {
		return nil, nil
	}
	var order binary.ByteOrder = binary.LittleEndian
	if magic&1 == 1 {
		order = binary.BigEndian
	}
	s1, s2 := walSum(order, 0, 0, h[:24])
	if s1 != binary.BigEndian.Uint32(h[24:]) || s2 != binary.BigEndian.Uint32(h[28:]) {
		return nil, nil
	}
	return h, nil
}

func (w *wal) readFrames() error {
	buf := make([]byte, walFrameBytes+w.pageSize)
	for {
		if _, err := w.file.ReadAt(buf, w.next); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if !bytes.Equal(buf[8:16], w.header[16:24]) {
			return nil // the rest of an older log
		}
		s1, s2 := walSum(w.order, w.s1, w.s2, buf[:8])
		s1, s2 = walSum(w.order, s1, s2, buf[walFrameBytes:])
		page := binary.BigEndian.Uint32(buf)
		if page == 0 || s1 != binary.BigEndian.Uint32(buf[16:]) || s2 != binary.BigEndian.Uint32(buf[20:]) {
			w.torn = true // being written, cut off by a kill, or damaged: SQLite ends here too
			return nil
		}
		w.torn = false
		w.s1, w.s2 = s1, s2
		w.pending = append(w.pending, walPage{page, w.next})
		w.next += int64(len(buf))
		if binary.BigEndian.Uint32(buf[4:]) == 0 {
			continue
		}
		for _, p := range w.pending {
			w.index[p.page] = p.at
			w.log = append(w.log, p.page)
		}
		w.pending = w.pending[:0]
	}
}

// page reads a page from the committed part of the log; nil when it has none.
func (w *wal) page(n uint32) ([]byte, error) {
	at, ok := w.index[n]
	if !ok {
		return nil, nil
	}
	buf := make([]byte, walFrameBytes+w.pageSize)
	if _, err := w.file.ReadAt(buf, at); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errChanged
		}
		return nil, err
	}
	if binary.BigEndian.Uint32(buf) != n || !bytes.Equal(buf[8:16], w.header[16:24]) {
		return nil, errChanged
	}
	return buf[walFrameBytes:], nil
}

// walSum carries SQLite's check sum of the log on over b, a multiple of 8 bytes.
func walSum(order binary.ByteOrder, s1, s2 uint32, b []byte) (uint32, uint32) {
	for ; len(b) >= 8; b = b[8:] {
		s1 += order.Uint32(b) + s2
		s2 += order.Uint32(b[4:]) + s1
	}
	return s1, s2
}
