package trialv1_test

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestGeneratedCodeIsFresh compares what was generated, and from what, with
// what is there. It needs neither protoc nor goctl.
func TestGeneratedCodeIsFresh(t *testing.T) {
	sums, err := os.Open("generated.sum")
	if err != nil {
		t.Fatal(err)
	}
	defer sums.Close()
	files := 0
	for lines := bufio.NewScanner(sums); lines.Scan(); files++ {
		want, path, ok := strings.Cut(lines.Text(), "  ")
		if !ok {
			t.Fatalf("generated.sum has the line %q", lines.Text())
		}
		text, err := os.ReadFile(filepath.Join("..", "..", "..", filepath.FromSlash(path)))
		if err != nil {
			t.Error(err)
			continue
		}
		if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != want {
			t.Errorf("%s is not what was there when the code was generated: run `make generate`", path)
		}
	}
	if files != 8 {
		t.Errorf("generated.sum names %d files", files)
	}
}
