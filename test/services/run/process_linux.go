package run

import (
	"os"
	"strconv"
	"strings"
	"syscall"
)

// attributes of a server's process: its own process group, so that Ctrl-C
// reaches it through the one who started it, the user, and a signal for when
// that one is gone.
func attributes(user *account, orphan syscall.Signal) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: orphan}
	if user != nil {
		a.Credential = &syscall.Credential{Uid: user.uid, Gid: user.gid}
	}
	return a
}

// descendants are the processes below one.
func descendants(pid int) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, e := range entries {
		if child, err := strconv.Atoi(e.Name()); err == nil {
			if _, parent, ok := stat(child); ok {
				children[parent] = append(children[parent], child)
			}
		}
	}
	return below(pid, children), nil
}

// alive says whether a process is there and no zombie.
func alive(pid int) bool {
	state, _, ok := stat(pid)
	return ok && state != "Z" && state != "X"
}

// stat reads a process's state and parent (proc(5)). The name, in parentheses,
// may hold anything, so what follows is counted from the last one.
func stat(pid int) (state string, parent int, ok bool) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return "", 0, false
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 2 {
		return "", 0, false
	}
	parent, err = strconv.Atoi(fields[1])
	return fields[0], parent, err == nil
}
