package app_test

import (
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/test/server"
	"github.com/tidegate/tidegate/test/services"
)

// bring copies what a copy of the journal lacks for service: keys and vault of a
// backup, as the help of ship says.
func bring(t *testing.T, backup, to string) {
	t.Helper()
	if err := os.CopyFS(filepath.Join(to, "keys"), os.DirFS(filepath.Join(backup, "keys"))); err != nil {
		t.Fatal(err)
	}
	if err := filepath.WalkDir(filepath.Join(to, "keys"), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return os.Chmod(path, 0o600)
	}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(backup, "vault.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(to, "vault.db"), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestServeFromCopy: the machine is lost, and service goes on from the copy, with
// an older backup of keys and vault.
func TestServeFromCopy(t *testing.T) {
	tmp := t.TempDir()
	copied, backup, anchor := filepath.Join(tmp, "copy"), filepath.Join(tmp, "backup"), filepath.Join(tmp, "anchor")
	s := server.Start(t, server.Options{Participants: 5, Args: []string{"--anchor", anchor, "--rpc", "none"}, Env: []string{"TIDEGATE_SHIP_TO=" + copied}})
	token, staff := s.Token("P-000001", "T001"), s.Staff("coordinator", "anna", "--trial", "T001")
	must(t, "backup", "--data", s.Data, "--to", backup, "--anchor", anchor)
	reports(t, s, token, 0, 20)
	wait(t, "the copy has all", func() bool { return position(copied) == position(s.Data) })
	wait(t, "the tables have all", func() bool {
		code, text := s.Get("/v1/trials/T001/reports", staff)
		return code == http.StatusOK && strings.Count(text, `"reportId"`) == 20
	})
	s.Stop() // which signs a last checkpoint
	bring(t, backup, copied)
	if err := os.Rename(s.Data, s.Data+".lost"); err != nil {
		t.Fatal(err)
	}
	again := server.Start(t, server.Options{Data: copied, Serve: true, Args: []string{"--anchor", anchor, "--rpc", "none"}})
	reports(t, again, token, 20, 5)
	wait(t, "all reports are shown", func() bool {
		code, text := again.Get("/v1/trials/T001/reports", staff)
		return code == http.StatusOK && strings.Count(text, `"reportId"`) == 25
	})
	again.Stop()
	if a := verified(t, "--data", copied, "--anchor", anchor); a.Accepted != 25 || a.Recorded != 25 {
		t.Errorf("verify says %+v", a)
	}
	// From now on it is no copy: nobody ships onto it.
	refused(t, 1, "is no copy any more", "ship", "--once", "--data", s.Data+".lost", "--to", copied)
}

// TestServeFromCopyThatLacksFrames: what had not reached the copy is seen by the
// anchor, and somebody has to accept it.
func TestServeFromCopyThatLacksFrames(t *testing.T) {
	tmp := t.TempDir()
	copied, backup, anchor := filepath.Join(tmp, "copy"), filepath.Join(tmp, "backup"), filepath.Join(tmp, "anchor")
	s := server.Start(t, server.Options{Participants: 5, Args: []string{"--anchor", anchor, "--rpc", "none"}})
	token := s.Token("P-000001", "T001")
	reports(t, s, token, 0, 5)
	shipOnce(t, "--data", s.Data, "--to", copied)
	reports(t, s, token, 5, 5)
	s.Stop()
	must(t, "backup", "--data", s.Data, "--to", backup, "--anchor", anchor)
	bring(t, backup, copied)
	refused(t, 1, "anchor", "serve", "--data", copied, "--anchor", anchor, "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--rpc", "none")
	must(t, "era", "open", "--data", copied, "--anchor", anchor, "--reason", "machine lost, copy of the evening")
	again := server.Start(t, server.Options{Data: copied, Serve: true, Args: []string{"--anchor", anchor, "--rpc", "none"}})
	reports(t, again, token, 5, 5) // the phones still have them
	again.Stop()
	if a := verified(t, "--data", copied, "--anchor", anchor); a.Accepted != 10 || a.Duplicates != 0 {
		t.Errorf("verify says %+v", a)
	}
}

// TestProjectorShips: in the second shape the active projector keeps the copies,
// and the one that takes over goes on.
func TestProjectorShips(t *testing.T) {
	pg := services.SharedPostgres(t)
	copied := filepath.Join(t.TempDir(), "copy")
	target := pg.NewDatabase(t)
	must(t, "migrate", "--postgres", target)
	c := newCluster(t, pg, fmt.Sprintf("ship:\n  to: [%q, %q]\n", copied, target))
	must(t, "migrate", "--config", c.config)
	first, second := c.start("projector", "projector-1"), c.start("projector", "projector-2")
	first.said("msg=serving")
	second.said("msg=serving")
	must(t, "seed", "--data", c.root, "--config", c.config, "--participants", "20")
	const head = "SELECT position FROM tidegate_journal.head WHERE shard = 0"
	caughtUp := func() bool {
		want := sqlInt(t, c.journal, head)
		return want > 0 && position(copied) == want && sqlInt(t, target, head) == want
	}
	wait(t, "both copies", caughtUp)
	_ = first.cmd.Process.Kill()
	<-first.ended
	c.ok("token", "staff", "--data", c.root, "--config", c.config, "--role", "coordinator", "--name", "anna", "--trial", "T001")
	wait(t, "both copies again", caughtUp)
	verified(t, "--data", copied)
	verified(t, "--data", c.root, "--journal", target)
}
