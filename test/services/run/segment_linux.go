package run

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// forgetSegment removes the System V memory that a killed server has left, as
// its postmaster.pid names it on the seventh line: key and id.
func forgetSegment(pidFile string) error {
	text, err := os.ReadFile(pidFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	lines := strings.Split(string(text), "\n")
	var key, id int
	if len(lines) < 7 {
		return nil // killed before it had any
	}
	if _, err := fmt.Sscan(lines[6], &key, &id); err != nil {
		return nil //nolint:nilerr // likewise
	}
	if _, err := unix.SysvShmCtl(id, unix.IPC_RMID, nil); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EIDRM) {
		return fmt.Errorf("remove the memory of a killed PostgreSQL: %w", err)
	}
	return os.Remove(pidFile)
}
