//go:build unix

package auth

import (
	"io/fs"
	"os"
	"syscall"
)

// permissionsMatter says that mode bits keep other users out here.
const permissionsMatter = true

// foreignOwner says whether a file belongs to another user than the one this
// process acts as.
func foreignOwner(info fs.FileInfo) (uid int, foreign bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(st.Uid), int(st.Uid) != os.Geteuid()
}

// syncDir makes the names in a folder durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}
