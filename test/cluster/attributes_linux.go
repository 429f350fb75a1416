package cluster

import "syscall"

// attributes of a role's process: a process group of its own, so that Ctrl-C
// reaches it through the one who started it; and it ends with that one.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
