//go:build !linux

package crash_test

import "testing"

func TestPowerLoss(t *testing.T) {
	t.Skip("not shown here: forcing a file system down needs Linux, root and a loop device")
}

func TestDiskFull(t *testing.T) {
	t.Skip("not shown here: a small file system of its own needs Linux, root and a loop device")
}
