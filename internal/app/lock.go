package app

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// lockFile is what LOCK says of its holder, so that whoever is refused can say
// by whom, and a command can ask a running server to write for it.
type lockFile struct {
	PID   int    `json:"pid"`
	Admin string `json:"admin,omitempty"` // address of the holder's admin listener, if it has one
	What  string `json:"what"`            // the command that holds it
}

// LockedError says that another process writes to the data folder.
type LockedError struct {
	Path   string
	Holder lockFile
}

// Error implements error.
func (e *LockedError) Error() string {
	by := "another process"
	if e.Holder.PID != 0 {
		by = fmt.Sprintf("process %d (tidegate %s)", e.Holder.PID, e.Holder.What)
	}
	return fmt.Sprintf("data folder %s is in use by %s: stop it first, or use another folder", filepath.Dir(e.Path), by)
}

// lock is held by whatever writes to a data folder. The kernel releases it when
// the process ends, however it ends.
type lock struct{ f *os.File }

// takeLock takes the folder's LOCK, or returns a *LockedError.
func takeLock(dir, what string) (*lock, error) {
	l, err := flock(dir, os.O_RDWR|os.O_CREATE)
	// Whoever only asks who holds the lock has it for a moment itself, and a
	// holder that has just started has not yet written who it is.
	for range 5 {
		if locked := (*LockedError)(nil); !errors.As(err, &locked) {
			break
		}
		time.Sleep(20 * time.Millisecond) //nolint:forbidigo // a tenth of a second at most, before anything has begun
		l, err = flock(dir, os.O_RDWR|os.O_CREATE)
	}
	if err != nil {
		return nil, err
	}
	if err := l.describe(lockFile{PID: os.Getpid(), What: what}); err != nil {
		return nil, errors.Join(err, l.release())
	}
	return l, nil
}

func flock(dir string, flags int) (*lock, error) {
	path := filepath.Join(dir, "LOCK")
	f, err := os.OpenFile(filepath.Clean(path), flags, 0o600)
	if err != nil {
		return nil, fmt.Errorf("take the lock of the data folder: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) //nolint:gosec // a file descriptor
	if err == nil {
		return &lock{f}, nil
	}
	defer f.Close() //nolint:errcheck // only read
	if !errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("take the lock %s (a network file system? use a local one): %w", path, err)
	}
	locked := &LockedError{Path: path}
	if b, err := io.ReadAll(io.LimitReader(f, 4096)); err == nil {
		_ = json.Unmarshal(b, &locked.Holder) // empty for a moment when the holder has just started
	}
	return nil, locked
}

// describe writes what LOCK says of its holder.
func (l *lock) describe(v lockFile) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := l.f.Truncate(0); err != nil {
		return fmt.Errorf("write LOCK: %w", err)
	}
	if _, err := l.f.WriteAt(append(b, '\n'), 0); err != nil {
		return fmt.Errorf("write LOCK: %w", err)
	}
	return nil
}

func (l *lock) release() error { return l.f.Close() }

// holder tells who holds the folder's lock, if anyone does.
func holder(dir string) (lockFile, bool) {
	l, err := flock(dir, os.O_RDWR)
	if err == nil {
		_ = l.release()
		return lockFile{}, false
	}
	var locked *LockedError
	if errors.As(err, &locked) {
		return locked.Holder, true
	}
	return lockFile{}, false
}
