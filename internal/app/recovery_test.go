package app_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/tidegate/tidegate/internal/app"
)

// Of the copies of a -wal the first and the newest four stay, and a start that
// fails again and again makes no more of the same.
func TestKeptWALs(t *testing.T) {
	dir := t.TempDir()
	wal := filepath.Join(dir, "journal.db-wal")
	keep := func(text string) {
		t.Helper()
		if err := os.WriteFile(wal, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := app.KeepWAL(dir); err != nil {
			t.Fatal(err)
		}
	}
	copies := func() (texts []string) {
		t.Helper()
		paths, err := filepath.Glob(filepath.Join(dir, "recovery", "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range paths {
			b, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			texts = append(texts, string(b))
		}
		return texts
	}
	keep("")
	if got := copies(); len(got) != 0 {
		t.Fatalf("an empty -wal was kept: %q", got)
	}
	for range 3 {
		keep("first")
	}
	if got := copies(); !slices.Equal(got, []string{"first"}) {
		t.Fatalf("the same three times: %q", got)
	}
	for i := range 6 {
		keep(fmt.Sprint("later ", i))
	}
	if got := copies(); !slices.Equal(got, []string{"first", "later 2", "later 3", "later 4", "later 5"}) {
		t.Fatalf("%q", got)
	}
	keep("later 5 and more") // begins as the last does
	if got := copies(); len(got) != 5 || got[4] != "later 5 and more" {
		t.Fatalf("%q", got)
	}
}
