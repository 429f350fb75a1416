package directory

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/store"
)

// The file: fileMagic, the content, and the SHA-256 of both. Numbers are
// varints, texts have their length in front. It names participants and holds
// nothing of their health. Whoever changes the content changes the magic: an
// older file is then put aside like a damaged one, and told anew.
const fileMagic = "tidegate-directory 1\n"

// Suffixes of the files beside it: the next one while it is written, and the
// last one that could not be read.
const (
	newSuffix   = ".new"
	asideSuffix = ".damaged"
)

var errFile = errors.New("not a whole directory of this version")

// load reads the file into an empty directory.
func (d *Directory) load() {
	b, err := os.ReadFile(d.opts.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err == nil {
		var f fileContent
		if f, err = decodeFile(b, d.opts.Identity); err == nil {
			d.held, d.version, d.asOf, d.fromDisk = f.held, f.version, f.asOf, true
			d.fileBytes, d.saved = int64(len(b)), d.now()
			d.log.Info("the directory was read from its file", "position", uint64(f.version.Position(0)), "enrollments", f.held.enrolled, "asOf", f.asOf)
			return
		}
	}
	aside := d.opts.Path + asideSuffix
	if moved := os.Rename(d.opts.Path, aside); moved != nil {
		d.log.Error("the directory's file cannot be read, and not put aside either; it begins empty", "error", errors.Join(err, moved))
		return
	}
	d.log.Error("the directory's file cannot be used and was put aside; it begins empty, and is told everything again", "file", aside, "error", err)
}

// keep writes the file while there is something new, until ctx ends.
func (d *Directory) keep(ctx context.Context) {
	for sleep(ctx, d.opts.SaveEvery) {
		d.mu.RLock()
		due := d.changed || d.moved && d.now().Sub(d.saved) >= saveIdle
		d.mu.RUnlock()
		if due {
			d.save()
		}
	}
}

// save writes the file if there is anything new. A failure is told once, and
// the next save tries again: what is lost is only the copy for a restart.
func (d *Directory) save() {
	d.mu.Lock()
	if d.version == nil || !d.changed && !d.moved {
		d.mu.Unlock()
		return
	}
	changed, moved := d.changed, d.moved
	d.changed, d.moved = false, false
	d.mu.Unlock()
	d.mu.RLock() // readers go on; what changes in between is saved the next time
	b := encodeFile(fileContent{held: d.held, version: d.version, asOf: d.asOf}, d.opts.Identity)
	d.mu.RUnlock()

	err := replaceFile(d.opts.Path, b)

	d.mu.Lock()
	defer d.mu.Unlock()
	was := d.saveErr
	d.saveErr, d.saved = err, d.now()
	switch {
	case err != nil:
		d.changed, d.moved = d.changed || changed, d.moved || moved
		if was == nil {
			d.log.Warn("the directory cannot be kept in its file; it is tried again", "error", err)
		}
	default:
		d.fileBytes = int64(len(b))
		if was != nil {
			d.log.Info("the directory is kept in its file again")
		}
	}
}

// replaceFile puts b in the place of a file so that a crash at any moment leaves
// the one or the other, whole.
func replaceFile(path string, b []byte) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("keep the directory: %w", err)
		}
	}()
	next := path + newSuffix
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(next)) // a full disk needs the room
	}
	if err := os.Rename(next, path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// fileContent is what a file holds.
type fileContent struct {
	held    *holdings
	version Version
	asOf    time.Time
}

func encodeFile(c fileContent, identity string) []byte {
	b := make([]byte, 0, 4096+64*c.held.enrolled)
	text := func(s string) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	number := func(n uint64) { b = binary.AppendUvarint(b, n) }
	count := func(n int) { number(uint64(n)) }
	at := func(n int64) { b = binary.AppendVarint(b, n) }

	b = append(b, fileMagic...)
	text(identity)
	at(nanos(c.asOf))
	count(len(c.version))
	for _, n := range c.version {
		number(n)
	}
	count(len(c.held.trials))
	index := make(map[*trial]int, len(c.held.trials))
	for _, t := range c.held.trials {
		index[t] = len(index)
		text(t.ID)
		text(t.Name)
		text(string(t.Status))
		number(uint64(t.Shard))
		number(t.Version)
		at(nanos(t.CreatedAt))
		count(len(t.Instruments))
		for _, name := range t.Instruments {
			text(name)
		}
		count(len(t.sites))
		for id := range t.sites {
			s := t.sites[id]
			text(s.ID)
			text(s.Name)
			at(nanos(s.CreatedAt))
		}
	}
	count(len(c.held.people))
	for patient, list := range c.held.people {
		text(patient)
		count(len(list))
		for i := range list {
			p := &list[i]
			count(index[p.trial])
			text(p.site)
			text(p.status)
			number(uint64(p.minEpoch))
			number(p.version)
			at(p.enrolled)
			at(p.withdrawn)
		}
	}
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

func decodeFile(b []byte, identity string) (fileContent, error) {
	end := len(b) - sha256.Size
	if end < len(fileMagic) || string(b[:len(fileMagic)]) != fileMagic {
		return fileContent{}, errFile
	}
	if sha256.Sum256(b[:end]) != [sha256.Size]byte(b[end:]) {
		return fileContent{}, fmt.Errorf("%w: its checksum does not fit", errFile)
	}
	r := &fileReader{b: b[len(fileMagic):end]}
	if r.text() != identity {
		return fileContent{}, fmt.Errorf("%w: it is of another installation", errFile)
	}
	c := fileContent{held: newHoldings(), asOf: instant(r.at())}
	for range r.count() {
		c.version = append(c.version, r.number())
	}
	trials := make([]*trial, r.count())
	for i := range trials {
		t := c.held.trial(r.text())
		t.Name, t.Status = r.text(), epro.TrialStatus(r.text())
		t.Shard, t.Version, t.CreatedAt = r.small(), r.number(), instant(r.at())
		for range r.count() {
			t.Instruments = append(t.Instruments, r.text())
		}
		for range r.count() {
			s := store.Site{TrialID: t.ID, ID: r.text(), Name: r.text(), CreatedAt: instant(r.at())}
			t.sites[s.ID] = s
			c.held.sites++
		}
		trials[i] = t
	}
	for range r.count() {
		patient := r.text()
		for range r.count() {
			i := r.number()
			if r.bad || i >= uint64(len(trials)) {
				return fileContent{}, errFile
			}
			c.held.putPerson(patient, person{
				trial: trials[i], site: c.held.word(r.text()), status: c.held.word(r.text()), minEpoch: r.small(), version: r.number(),
				enrolled: r.at(), withdrawn: r.at(),
			})
		}
	}
	if r.bad || len(r.b) != 0 || len(c.version) == 0 || len(c.version)%2 != 0 {
		return fileContent{}, errFile
	}
	return c, nil
}

// fileReader takes values off the front of b; bad is set once and stays.
type fileReader struct {
	b   []byte
	bad bool
}

func (r *fileReader) number() uint64 {
	n, size := binary.Uvarint(r.b)
	if r.bad || size <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *fileReader) small() uint32 {
	n := r.number()
	if n > math.MaxUint32 {
		r.bad = true
		return 0
	}
	return uint32(n)
}

func (r *fileReader) at() int64 {
	n, size := binary.Varint(r.b)
	if r.bad || size <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[size:]
	return n
}

// count reads how many things follow: of each there is at least a byte.
func (r *fileReader) count() int {
	n := r.number()
	if n > uint64(len(r.b)) {
		r.bad = true
		return 0
	}
	return int(n) //nolint:gosec // bounded just above
}

func (r *fileReader) text() string {
	n := r.count()
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}
