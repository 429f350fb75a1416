package crash_test

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// disk is a small real file system in a file, on a loop device.
type disk struct {
	t      testing.TB
	device string
	dir    string // where it is mounted
}

// newDisk makes and mounts one, or skips the test with the reason. It is taken
// down at the end of the test, whatever happened.
func newDisk(t testing.TB, fs string, megabytes int64) *disk {
	t.Helper()
	onDisk := t.TempDir()
	if os.Geteuid() != 0 {
		t.Skip("not shown here: a small file system of its own needs root")
	}
	// A distribution may keep these out of an ordinary PATH.
	t.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	for _, tool := range []string{"losetup", "mount", "umount", "mkfs." + fs} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("not shown here: %s is not installed (test/services/install.sh installs it)", tool)
		}
	}
	image := filepath.Join(onDisk, fs+".img")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, megabytes<<20); err != nil {
		t.Fatal(err)
	}
	device, err := tool("losetup", "--find", "--show", image)
	if err != nil {
		t.Skipf("not shown here: no loop device can be had: %v", err)
	}
	d := &disk{t: t, device: strings.TrimSpace(device), dir: filepath.Join(onDisk, "mnt")}
	t.Cleanup(func() {
		if _, err := tool("losetup", "--detach", d.device); err != nil {
			t.Errorf("the loop device is left behind: %v", err)
		}
	})
	if out, err := tool("mkfs."+fs, "-q", d.device); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := d.mount(); err != nil {
		t.Skipf("not shown here: the file system cannot be mounted: %v", err)
	}
	t.Cleanup(func() {
		if err := d.unmount(); err != nil {
			// Lazily, so that nothing is left behind when a process still holds it.
			_, lazy := tool("umount", "--lazy", d.dir)
			t.Errorf("%v (taken down lazily: %v)", err, lazy)
		}
	})
	return d
}

func (d *disk) mount() error { _, err := tool("mount", d.device, d.dir); return err }

// unmount tries for a while: a process that was just killed may still hold it.
func (d *disk) unmount() (err error) {
	for range 50 {
		if _, err = tool("umount", d.dir); err == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return err
}

// The same number on ext4 (EXT4_IOC_SHUTDOWN) and xfs (XFS_IOC_GOINGDOWN):
// _IOR('X', 125, uint32). The argument 2 means: flush neither data nor the file
// system's own journal, so whatever was not synced is gone, as in a power cut.
const (
	ioctlGoingDown = 0x8004587d
	noLogFlush     = uint32(2)
)

// powerOff takes the file system down; every later access fails.
func (d *disk) powerOff() {
	d.t.Helper()
	f, err := os.Open(d.dir)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // only read
	flags := noLogFlush
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), ioctlGoingDown, uintptr(unsafe.Pointer(&flags))); errno != 0 {
		if errors.Is(errno, syscall.ENOTTY) || errors.Is(errno, syscall.EOPNOTSUPP) || errors.Is(errno, syscall.EPERM) {
			d.t.Skipf("not shown here: this file system cannot be forced down: %v", errno)
		}
		d.t.Fatalf("force the file system down: %v", errno)
	}
}

// powerOn mounts it again, which recovers it from what had reached the device.
func (d *disk) powerOn() {
	d.t.Helper()
	if err := errors.Join(d.unmount(), d.mount()); err != nil {
		d.t.Fatal(err)
	}
}

// fill leaves about so many bytes free, or none at all.
func (d *disk) fill(left uint64) {
	d.t.Helper()
	var s syscall.Statfs_t
	if err := syscall.Statfs(d.dir, &s); err != nil {
		d.t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(d.dir, "ballast"))
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // only room matters
	size := int64(s.Bavail)*s.Bsize - int64(left)
	if err := syscall.Fallocate(int(f.Fd()), 0, 0, size); err != nil && left > 0 {
		d.t.Fatal(err)
	}
	if left > 0 {
		return
	}
	// To the end, with what is kept for root and what the server gives up meanwhile.
	chunk := make([]byte, 1<<20)
	if _, err := f.Seek(0, io.SeekEnd); err != nil {
		d.t.Fatal(err)
	}
	for len(chunk) > 0 {
		if _, err := f.Write(chunk); err != nil {
			chunk = chunk[:len(chunk)/16]
		}
	}
}

// empty removes the ballast.
func (d *disk) empty() {
	d.t.Helper()
	if err := os.Remove(filepath.Join(d.dir, "ballast")); err != nil {
		d.t.Fatal(err)
	}
}

// tool runs a system tool, bounded in time.
func tool(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return string(out), errors.New(name + ": " + err.Error() + ": " + strings.TrimSpace(string(out)))
	}
	return string(out), nil
}
