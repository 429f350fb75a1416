// Package run starts the real servers that Tidegate's second shape stands on,
// PostgreSQL and etcd, as private processes on loopback ports, and does to them
// what tests and `make cluster` need: kill, stop, freeze, promote. It knows
// nothing of package testing: package services ties it to a test.
//
// PostgreSQL refuses to run as root, so under root it runs as the user postgres
// or, if there is none, nobody, in a folder that this user owns. On Linux a
// server ends with the process that started it, even if that is killed.
package run

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
)

// MissingError says that a server's program is not on this machine.
type MissingError struct{ What string }

// Error is a sentence that says what to do.
func (e *MissingError) Error() string {
	return e.What + " is not installed: run `sh test/services/install.sh`"
}

// Missing says whether an error is, or wraps, a [MissingError].
func Missing(err error) bool {
	var m *MissingError
	return errors.As(err, &m)
}

// FreePort finds a free loopback port below the range from which the system
// takes ports for outgoing connections (ip(7): from 32768 on Linux): a server
// that is down for a while finds its port free again, whatever its clients do
// in the meantime.
func FreePort() (int, error) {
	const first, last = 15000, 32000
	for range 200 {
		port := first + rand.IntN(last-first)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		return port, l.Close()
	}
	return 0, errors.New("no free port on 127.0.0.1")
}

// Root is the top folder of the repository that the working folder is in.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "test", "services", "install.sh")); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("the working folder is not inside the repository")
}
