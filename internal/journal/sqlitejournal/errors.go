package sqlitejournal

import (
	"errors"
	"fmt"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// SQLite's result codes that decide what is done.
const (
	codeBusy       = sqlite3.SQLITE_BUSY
	codeConstraint = sqlite3.SQLITE_CONSTRAINT
	codeInterrupt  = sqlite3.SQLITE_INTERRUPT
)

// code is SQLite's result code in err without its extension, 0 if there is none.
func code(err error) int {
	var e *sqlite.Error
	if errors.As(err, &e) {
		return e.Code() & 0xff
	}
	return 0
}

// explain adds to SQLite's words what to do about them.
func explain(err error) error {
	advice := ""
	switch code(err) {
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL:
		advice = "another program holds the file: stop it"
	case sqlite3.SQLITE_FULL:
		advice = "the disk is full, or a limit on file sizes is reached: make room"
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH:
		advice = "this user must be able to write the file and its folder: correct their owner and mode"
	case sqlite3.SQLITE_CANTOPEN:
		advice = "the file or its -wal cannot be opened: correct the owner and mode of both and of their folder"
	case sqlite3.SQLITE_IOERR:
		advice = "the disk or its file system failed: look at the kernel's log"
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return damaged("%w", err)
	default:
		return err
	}
	return fmt.Errorf("%s (%w)", advice, err)
}

// lasting says whether the connection may have lost touch with the file, so
// that it must not be used again.
func lasting(err error) bool {
	switch code(err) {
	case codeBusy, codeConstraint, codeInterrupt:
		return false
	}
	return true
}
