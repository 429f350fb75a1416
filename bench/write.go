package main

import (
	"fmt"
	"os"
	"strings"
)

const (
	markerBegin = "<!-- bench: begin -->"
	markerEnd   = "<!-- bench: end -->"
)

// writeBetweenMarkers puts the figures into a document and leaves the rest as it is.
func writeBetweenMarkers(path, figures string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok1 := strings.Cut(string(text), markerBegin)
	_, after, ok2 := strings.Cut(rest, markerEnd)
	if !ok1 || !ok2 {
		return fmt.Errorf("%s has no lines %s and %s to write between", path, markerBegin, markerEnd)
	}
	whole := before + markerBegin + "\n\n" + strings.TrimSpace(figures) + "\n\n" + markerEnd + after
	return os.WriteFile(path, []byte(whole), 0o600)
}
