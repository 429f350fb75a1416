package app

import (
	"log/slog"
	"os"
	"time"
)

// What the tests of this package need beside its exported names.

// Lock is a taken lock of a data folder.
type Lock = lock

// TakeLock takes a folder's lock.
func TakeLock(dir, what string) (*Lock, error) { return takeLock(dir, what) }

// Release gives a lock back.
func (l *lock) Release() error { return l.release() }

// Holder tells who holds a folder's lock.
func Holder(dir string) (pid int, what string, held bool) {
	h, held := holder(dir)
	return h.PID, h.What, held
}

// KeepWAL copies a -wal of the folder aside.
func KeepWAL(dir string) error {
	return (&folder{dir: dir, log: slog.New(slog.DiscardHandler)}).keepWAL()
}

// Impatient says whether a signal asks for an end at once.
func Impatient(first, next os.Signal, after time.Duration) bool { return impatient(first, next, after) }

// SettingKeys are the keys of every setting, and the names of their variables.
func SettingKeys() map[string]string {
	c := NewDefaultConfig()
	keys := map[string]string{}
	for _, s := range settings(&c) {
		if s.doc == "" {
			panic("no explanation: " + s.key)
		}
		keys[s.key] = s.env
	}
	return keys
}
