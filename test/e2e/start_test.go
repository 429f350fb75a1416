package e2e_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/test/server"
)

// serveArgs start a server on a folder, on free ports.
func serveArgs(data string, more ...string) []string {
	return append([]string{"serve", "--data", data, "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"}, more...)
}

// seeded is a folder that holds a registry and some frames, cleanly closed.
func seeded(t *testing.T) string {
	t.Helper()
	data := place(t)
	must(t, "seed", "--data", data, "--participants", "40")
	for _, name := range []string{"anna", "bea", "cleo"} {
		must(t, "token", "staff", "--data", data, "--role", "monitor", "--name", name)
	}
	return data
}

// Every damage that keeps a server from starting: one sentence that says what
// is wrong and what to do, and the folder is as it was.
func TestStartIsRefusedAndHarmsNothing(t *testing.T) {
	parallel(t)
	base := seeded(t)
	file := func(name string, change func(b []byte) []byte) func(t *testing.T, data string) {
		return func(t *testing.T, data string) {
			t.Helper()
			path := filepath.Join(data, name)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, change(b), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(pattern string) func(t *testing.T, data string) {
		return func(t *testing.T, data string) {
			t.Helper()
			paths, err := filepath.Glob(filepath.Join(data, pattern))
			if err != nil || len(paths) == 0 {
				t.Fatalf("nothing to remove: %v", err)
			}
			for _, path := range paths {
				if err := os.RemoveAll(path); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	mode := func(name string, mode os.FileMode) func(t *testing.T, data string) {
		return func(t *testing.T, data string) {
			t.Helper()
			if err := os.Chmod(filepath.Join(data, name), mode); err != nil {
				t.Fatal(err)
			}
		}
	}
	over := func(from, to float64) func(b []byte) []byte { // parts of the file
		return func(b []byte) []byte {
			part := b[int(from*float64(len(b))):int(to*float64(len(b)))]
			copy(part, bytes.Repeat([]byte{'X'}, len(part)))
			return b
		}
	}
	version := func(b []byte) []byte { // the header's user_version
		binary.BigEndian.PutUint32(b[60:], binary.BigEndian.Uint32(b[60:])+1)
		return b
	}
	foreign := func(b []byte) []byte { // the header's application_id
		copy(b[68:72], "ELSE")
		return b
	}
	for name, c := range map[string]struct {
		damage func(t *testing.T, data string)
		says   []string
	}{
		"journal header":         {file("journal.db", func(b []byte) []byte { copy(b, "not a database at all"); return b }), []string{"journal.db", "restore a backup"}},
		"journal pages":          {file("journal.db", over(0.2, 0.9)), []string{"journal.db", "damaged", "tidegate verify", "restore a backup"}},
		"journal cut":            {file("journal.db", func(b []byte) []byte { return b[:len(b)*2/3] }), []string{"journal.db", "damaged", "restore a backup"}},
		"journal empty":          {file("journal.db", func([]byte) []byte { return nil }), []string{"journal.db", "restore a backup"}},
		"journal missing":        {remove("journal.db*"), []string{"journal.db", "is missing", "restore"}},
		"journal of a newer one": {file("journal.db", version), []string{"journal.db", "version"}},
		"tables of others":       {file("store.db", foreign), []string{"store.db", "not one with Tidegate's tables", "move it away"}},
		"vault missing":          {remove("vault.db"), []string{"vault.db", "is missing", "restore it from the backup"}},
		"vault empty":            {file("vault.db", func([]byte) []byte { return nil }), []string{"vault.db", "is empty", "restore it from the backup"}},
		"vault damaged":          {file("vault.db", over(0.05, 1)), []string{"vault.db", "damaged", "restore it from the backup"}},
		"keys folder missing":    {remove("keys"), []string{"keys is missing", "restore the keys folder"}},
		"meaning key missing":    {remove("keys/meaning.key"), []string{"meaning.key is missing", "restore it"}},
		"root.pub missing":       {remove("keys/root.pub"), []string{"root.pub is missing", "restore it"}},
		"token key missing":      {remove("keys/token-*.key"), []string{"token-1.key is missing", "restore it"}},
		"signing keys missing":   {remove("keys/signing-*.key"), []string{"signing", "missing", "restore"}},
		"token key damaged":      {file("keys/token-1.key", over(0.5, 0.9)), []string{"token-1.key is damaged", "restore it"}},
		"meaning key of others":  {mode("keys/meaning.key", 0o640), []string{"meaning.key is open to other users", "chmod 600"}},
		"keys folder of others":  {mode("keys", 0o750), []string{"keys is open to other users", "chmod 700"}},
		"folder of others":       {mode("", 0o770), []string{"can be changed by other users", "chmod 700"}},
	} {
		t.Run(name, func(t *testing.T) {
			data := place(t)
			copyTree(t, base, data, nil)
			c.damage(t, data)
			text := refusal{t: t, code: 1, data: data}.of(serveArgs(data)...)
			for _, says := range append(c.says, data) {
				if !strings.Contains(text, says) {
					t.Errorf("does not say %q: %s", says, text)
				}
			}
		})
	}
	t.Run("a clean copy starts", func(t *testing.T) { // or the refusals would prove nothing
		data := place(t)
		copyTree(t, base, data, nil)
		server.Start(t, server.Options{Serve: true, Data: data}).Stop()
	})
	for name, damage := range map[string]func([]byte) []byte{
		"no tables any more": over(0, 1),
		"half of the tables": over(0.05, 0.6),
		"tables cut short":   func(b []byte) []byte { return b[:len(b)/3] },
	} {
		t.Run(name, func(t *testing.T) { // they hold nothing of their own: they are made again
			data := place(t)
			copyTree(t, base, data, nil)
			file("store.db", damage)(t, data)
			s := server.Start(t, server.Options{Serve: true, Data: data})
			if !strings.Contains(s.Output(), "the tables are damaged") {
				t.Errorf("not said:\n%s", s.Output())
			}
			(user{t, s, s.Staff("admin", "ada")}).get("/v1/trials", http.StatusOK, nil)
			s.Stop()
			if b, err := os.ReadFile(filepath.Join(data, "store.db.damaged")); err != nil || len(b) == 0 {
				t.Errorf("the damaged ones were not put aside: %v", err)
			}
			if a := clean(t, data); a.RebuildSame == nil || !*a.RebuildSame {
				t.Errorf("%+v", a)
			}
		})
	}
	t.Run("a frame in the middle", func(t *testing.T) {
		// A start does not read every frame: the audit names the place.
		data := place(t)
		copyTree(t, base, data, nil)
		file("journal.db", func(b []byte) []byte {
			at := bytes.Index(b, []byte("Phase III"))
			if at < 0 {
				t.Fatal("no such words in the journal")
			}
			b[at] ^= 1
			return b
		})(t, data)
		out, _, code := tidegate(t, "verify", "--data", data)
		if code != 1 || !strings.Contains(out, "FINDING position") {
			t.Fatalf("verify: exit %d\n%s", code, out)
		}
	})
	t.Run("the root key may be elsewhere", func(t *testing.T) {
		data := place(t)
		copyTree(t, base, data, nil)
		remove("keys/root.key")(t, data)
		server.Start(t, server.Options{Serve: true, Data: data}).Stop()
		refusal{t: t, code: 1, says: "root.key", run: quiet(t)}.of("keys", "rotate", "--data", data)
	})
	t.Run("tables of another journal", func(t *testing.T) {
		data, other := place(t), seeded(t)
		copyTree(t, base, data, nil)
		b, err := os.ReadFile(filepath.Join(other, "journal.db"))
		if err != nil {
			t.Fatal(err)
		}
		file("journal.db", func([]byte) []byte { return b })(t, data)
		refusal{t: t, code: 1, says: "tidegate rebuild --data", data: data, run: quiet(t)}.of(serveArgs(data, "--anchor", "none")...)
	})
}

// What is wrong around the folder: addresses, configuration, roles, a second
// process.
func TestStartIsRefusedForItsSurroundings(t *testing.T) {
	parallel(t)
	s := server.Start(t, server.Options{Serve: true, Data: place(t)})
	other := seeded(t)
	pid := fmt.Sprintf("process %d (tidegate serve)", s.Process.Pid)
	for _, args := range [][]string{
		serveArgs(s.Data), {"seed", "--data", s.Data}, {"rebuild", "--data", s.Data}, {"era", "open", "--data", s.Data, "--reason", "why"}, {"demo", "--data", s.Data},
	} {
		refusal{t: t, code: 1, says: pid}.of(args...)
	}
	public := strings.TrimPrefix(s.URL, "http://")
	refusal{t: t, code: 1, says: "another program listens on " + public, data: other}.of("serve", "--data", other, "--http", public, "--admin", "127.0.0.1:0")
	refusal{t: t, code: 1, says: "another program listens on " + s.Admin, data: other}.of("serve", "--data", other, "--http", "127.0.0.1:0", "--admin", s.Admin)
	refusal{t: t, code: 1, says: "cannot listen on", data: other, run: quiet(t)}.of("serve", "--data", other, "--http", "203.0.113.1:80", "--admin", "127.0.0.1:0")
	if l, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		refusal{t: t, code: 1, says: "choose another address with --http", data: other}.of("serve", "--data", other, "--http", l.Addr().String(), "--admin", "127.0.0.1:0")
		_ = l.Close()
	}

	config := func(text string) string {
		t.Helper()
		path := filepath.Join(t.TempDir(), "tidegate.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for text, says := range map[string]string{
		"intake:\n  maxFact: 10\n":       "maxFact",
		"data: [1, 2]\n":                 "config file",
		"http: 8080\n":                   "http: must be host:port",
		"intake:\n  maxAge: soon\n":      "config file",
		"log:\n  level: loud\n":          "log.level",
		"tls:\n  cert: x.pem\n":          "cert and key belong together",
		"durability:\n  require: hope\n": "durability.require",
	} {
		path := config(text)
		refusal{t: t, code: 1, says: says, data: other}.of("serve", "--data", other, "--admin", "127.0.0.1:0", "--config", path)
		refusal{t: t, code: 1, says: says}.of("config", "check", path)
	}
	refusal{t: t, code: 1, says: "no such file", data: other}.of(serveArgs(other, "--config", "/nowhere/tidegate.yaml")...)
	refusal{t: t, code: 1, says: "quorum-fsync", data: other}.of("serve", "--data", other, "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--config", config("durability:\n  require: quorum-fsync\n"))
	refusal{t: t, code: 1, says: "anchor", data: other}.of(serveArgs(other, "--anchor", "ftp://example.org/a")...)

	for _, env := range []struct{ set, says string }{
		{"TIDEGATE_INTAKE_MAXAGE=fast", "TIDEGATE_INTAKE_MAXAGE: must be a duration"},
		{"TIDEGATE_LIMITS_BULK=many", "TIDEGATE_LIMITS_BULK: must be a whole number"},
		{"TIDEGATE_LIMITS_BULK=0", "limits.bulk: must be more than 0"},
		{"TIDEGATE_HTPT=127.0.0.1:1", "TIDEGATE_HTPT is not a setting"},
	} {
		name, value, _ := strings.Cut(env.set, "=")
		t.Run(name+"="+value, func(t *testing.T) {
			run := func(args ...string) (string, string, int) { return tidegateEnv(t, env.set, args...) }
			refusal{t: t, code: 1, says: env.says, data: other, run: run}.of("serve", "--data", other)
		})
	}
	for _, role := range []string{"gateway", "trial", "projector", "outlet", "analysis", "notifier"} {
		refusal{t: t, code: 2, says: "PostgreSQL", data: other}.of(append(serveArgs(other), role)...)
	}
	refusal{t: t, code: 2, says: `no role "gatway"`, data: other}.of(append(serveArgs(other), "gatway")...)
	empty := t.TempDir()
	for _, args := range [][]string{
		{"verify"},
		{"rebuild"},
		{"keys", "list"},
		{"keys", "rotate"},
		{"backup", "--to", filepath.Join(empty, "b")},
		{"era", "open", "--reason", "x"},
		{"token", "participant", "--patient", "P-1", "--trial", "T001"},
		{"token", "staff", "--role", "admin", "--name", "a"},
		{"token", "relay", "--name", "r", "--trial", "T001"},
		{"load", "--target", s.URL},
	} {
		refusal{t: t, code: 1, says: "is no data folder"}.of(append(args, "--data", filepath.Join(empty, "none"))...)
		refusal{t: t, code: 1, says: "is no data folder"}.of(append(args, "--data", empty)...)
	}
	if left, err := os.ReadDir(empty); err != nil || len(left) > 1 || len(left) == 1 && left[0].Name() != "LOCK" {
		t.Errorf("commands that only look left files behind: %v %v", left, err)
	}
	refusal{t: t, code: 1, says: "no server runs on"}.of("status", "--data", other)
	s.Kill()
	refusal{t: t, code: 1, says: "no server runs on"}.of("status", "--data", s.Data)
	// The lock of a process that was killed holds nobody up.
	s = again(t, s)
	if code, _ := s.Get("/v1/keys", ""); code != http.StatusOK {
		t.Fatalf("after a kill: %d", code)
	}
	s.Stop()
}

// Files that belong to root, and another user's server.
func TestStartWithoutTheRightToWrite(t *testing.T) {
	if runtime.GOOS != "linux" || os.Getuid() != 0 {
		t.Skip("only root can start a process as another user")
	}
	parallel(t)
	data := seeded(t)
	run := func(args ...string) (string, string, int) { t.Helper(); return asNobody(t, args...) }
	own := func(uid int) {
		t.Helper()
		if err := filepath.Walk(data, func(path string, _ os.FileInfo, err error) error {
			if err == nil {
				err = os.Chown(path, uid, -1)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	open(t, filepath.Dir(data))
	refusal{t: t, code: 1, says: "cannot be read and written by this user", data: data, run: run}.of(serveArgs(data)...)
	own(nobody)
	for name, mode := range map[string]os.FileMode{"": 0o500, "journal.db": 0o400, "store.db": 0o400, "vault.db": 0o400} {
		path := filepath.Join(data, name)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		refusal{t: t, code: 1, says: path + " cannot be read and written by this user", data: data, run: run}.of(serveArgs(data)...)
		if err := os.Chmod(path, info.Mode()); err != nil {
			t.Fatal(err)
		}
	}
	if out, errs, code := run("verify", "--data", data, "--anchor", "none"); code != 0 {
		t.Fatalf("with the right modes: exit %d\n%s%s", code, out, errs)
	}
	refusal{t: t, code: 1, says: "make the data folder", run: run}.of(serveArgs("/proc/tidegate")...)
}
