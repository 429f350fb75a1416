package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/tidegate/tidegate/internal/load"
)

// machine is what figures depend on.
type machine struct {
	kernel, cpu, loadAverage string
	sync                     load.Histogram
}

// describeMachine measures the disk under dir, too.
func describeMachine(dir string) (*machine, error) {
	m := &machine{kernel: firstLine("/proc/sys/kernel/osrelease"), cpu: "unknown", loadAverage: loadAverage()}
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			m.cpu = strings.TrimSpace(value)
			break
		}
	}
	f, err := os.Create(filepath.Join(dir, "sync"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	page := make([]byte, 4<<10)
	for i := range 200 {
		page[0] = byte(i)
		start := time.Now()
		if _, err := f.Write(page); err != nil {
			return nil, err
		}
		if err := f.Sync(); err != nil {
			return nil, err
		}
		m.sync.Record(time.Since(start))
	}
	return m, nil
}

func firstLine(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return line
}

func loadAverage() string {
	fields := strings.Fields(firstLine("/proc/loadavg"))
	return strings.Join(fields[:min(3, len(fields))], " ")
}

func (m *machine) write(out *strings.Builder) {
	q := m.sync.Quantiles()
	fmt.Fprintf(out, "%s, %d cores of %s, %s, kernel %s. Generator and servers share the cores.\n",
		time.Now().UTC().Format("2006-01-02 15:04 UTC"), runtime.NumCPU(), m.cpu, runtime.Version(), m.kernel)
	fmt.Fprintf(out, "Load average at the start: %s. Write and sync of 4 KiB on this disk, 200 times: P50 %.2f ms, P99 %.2f ms, most %.2f ms.\n",
		m.loadAverage, q.P50, q.P99, q.Max)
}
