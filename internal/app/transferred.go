package app

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// fileTransferred lies in a data folder whose journal goes on in PostgreSQL.
// What would be taken here from then on would not be there.
const fileTransferred = "transferred"

// transferredTo is the content of fileTransferred.
type transferredTo struct {
	To       string    `json:"to"` // URL of the journal, without its password
	Position uint64    `json:"position"`
	At       time.Time `json:"at"`
}

// readTransferred says where a folder's journal went; nil if nowhere.
func readTransferred(dir string) (*transferredTo, error) {
	path := filepath.Join(dir, fileTransferred)
	b, err := os.ReadFile(filepath.Clean(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var t transferredTo
	if err := json.Unmarshal(b, &t); err != nil || t.To == "" {
		return nil, fmt.Errorf("%s is damaged, and it says where this folder's journal went on: find out before you remove it", path)
	}
	return &t, nil
}

// notTransferred refuses to go on with a journal that goes on elsewhere.
func (f *folder) notTransferred() error {
	t, err := readTransferred(f.dir)
	if err != nil || t == nil {
		return err
	}
	return fmt.Errorf("the journal of %s went to %s on %s, with all up to position %d: what is taken here from now on would be missing there. Go on there: name the database with --config FILE or TIDEGATE_POSTGRES_URL (tidegate serve %s --config FILE); if nothing was ever taken there and you want this folder back, remove %s",
		f.dir, t.To, t.At.Format(time.RFC3339), t.Position, roleGateway, f.path(fileTransferred))
}

// write makes the file durably.
func (t transferredTo) write(dir string) error {
	b, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(dir, fileTransferred), append(b, '\n'))
}

// replaceFile writes a small private file durably, under its name only when it
// is whole.
func replaceFile(path string, content []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncFolder(filepath.Dir(path))
}
