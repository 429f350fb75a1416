//go:build unix

package receipt

import (
	"os"
	"syscall"
)

// device is the number of the file system on which a path lies.
func device(path string) (uint64, bool) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return uint64(st.Dev), true //nolint:gosec,unconvert // int32 on some systems
}
