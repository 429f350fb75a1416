//go:build unix && !linux

package run

import (
	"fmt"
	"os/exec"
	"strings"
	"syscall"
)

// attributes of a server's process. Only Linux can end it with its parent.
func attributes(user *account, _ syscall.Signal) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setpgid: true}
	if user != nil {
		a.Credential = &syscall.Credential{Uid: user.uid, Gid: user.gid}
	}
	return a
}

// descendants are the processes below one.
func descendants(pid int) ([]int, error) {
	out, err := exec.Command("ps", "-A", "-o", "pid=,ppid=").Output()
	if err != nil {
		return nil, fmt.Errorf("ps: %w", err)
	}
	children := map[int][]int{}
	for line := range strings.Lines(string(out)) {
		var child, parent int
		if _, err := fmt.Sscan(line, &child, &parent); err == nil {
			children[parent] = append(children[parent], child)
		}
	}
	return below(pid, children), nil
}

// alive says whether a process is there and no zombie.
func alive(pid int) bool {
	out, err := exec.Command("ps", "-o", "stat=", "-p", fmt.Sprint(pid)).Output() //nolint:gosec // a number
	return err == nil && !strings.HasPrefix(strings.TrimSpace(string(out)), "Z")
}
