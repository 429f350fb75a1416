package app_test

import (
	"path/filepath"
	"testing"
)

// What could never work is wrong use, exit code 2, and found before anything is
// read or written; what is only not there is a failure, exit code 1.
func TestWrongUse(t *testing.T) {
	dir := t.TempDir()
	root, to := filepath.Join(dir, "root"), filepath.Join(dir, "to")
	must(t, "keys", "init", "--data", root)
	refused(t, 2, "cannot name issued keys", "keys", "issue", "--data", root, "--to", to, "--name", "bad name/..")
	refused(t, 2, "16 lower-case hexadecimal digits", "keys", "retire", "nosuch", "--data", root)
	refused(t, 2, "role must be one of", "token", "staff", "--data", root, "--role", "king", "--name", "anna")
	refused(t, 2, "site needs a trial", "token", "staff", "--data", root, "--role", "monitor", "--name", "anna", "--site", "S1")
	data := filepath.Join(dir, "data")
	must(t, "seed", "--data", data, "--participants", "1")
	refused(t, 1, "0123456789abcdef", "keys", "retire", "0123456789abcdef", "--data", data)
}
