package run

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
)

// account is a user of this machine.
type account struct {
	name     string
	uid, gid uint32
}

// unprivileged is the account that PostgreSQL runs as when we are root, nil
// when we are not and it may run as we do.
func unprivileged() (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil // no account: as we are
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 == nil && err2 == nil && uid != 0 {
			return &account{name, uint32(uid), uint32(gid)}, nil
		}
	}
	return nil, errors.New("PostgreSQL does not run as root, and this machine has neither a user postgres nor nobody: run the tests as an ordinary user")
}

// own makes a folder and gives it to the account.
func (a *account) own(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if a == nil {
		return nil
	}
	if err := os.Chown(dir, int(a.uid), int(a.gid)); err != nil {
		return err
	}
	for up := filepath.Dir(dir); ; up = filepath.Dir(up) {
		info, err := os.Stat(up)
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o001 == 0 {
			return fmt.Errorf("%s cannot be entered by the user %s, which PostgreSQL runs as: choose a folder that everybody can reach", up, a.name)
		}
		if up == filepath.Dir(up) {
			return nil
		}
	}
}

// below lists the descendants of a process, given who is whose child.
func below(pid int, children map[int][]int) []int {
	var out []int
	for _, c := range children[pid] {
		out = append(out, c)
		out = append(out, below(c, children)...)
	}
	return out
}
