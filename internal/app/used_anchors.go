package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/journal/sqlitejournal"
	"github.com/tidegate/tidegate/internal/receipt"
)

// fileAnchors names the anchors that a folder had when it was backed up. The
// default anchor is named after its folder, so a backup that comes back under
// another name would else be compared with nothing.
const fileAnchors = "anchors.json"

// usedAnchors is the content of fileAnchors. In a backup it tells of the folder
// it was made of. In a restored folder it is there until the journal was found
// to hold what those anchors saw, or an era accepted that it does not.
type usedAnchors struct {
	Root     string    `json:"root"`              // fingerprint of the root key
	Anchors  []string  `json:"anchors"`           // absolute paths and URLs
	Restored time.Time `json:"restored,omitzero"` // zero in a backup
}

// anchorSpecs are the anchors of a configuration, as text.
func anchorSpecs(cfg Config, dir, fingerprint string) ([]string, error) {
	if len(cfg.Anchors) == 0 {
		path, err := receipt.DefaultAnchorPath(dir, fingerprint)
		return []string{path}, err
	}
	return slices.DeleteFunc(slices.Clone(cfg.Anchors), func(spec string) bool { return spec == "none" }), nil
}

// anchorsToName are the anchors of a folder for its backup: those that its
// server writes, and those of before an earlier restore that are not settled.
func anchorsToName(cfg Config, dir, fingerprint string) (usedAnchors, error) {
	u := usedAnchors{Root: fingerprint, Anchors: []string{}}
	specs, err := anchorSpecs(cfg, dir, fingerprint)
	if err != nil {
		return u, err
	}
	before, err := readUsedAnchors(dir, fingerprint)
	if err != nil {
		return u, err
	}
	for _, spec := range append(specs, before.Anchors...) {
		if _, err := receipt.ParseAnchor(spec); err != nil {
			return u, usageError{err}
		}
		if !strings.Contains(spec, "://") {
			if spec, err = filepath.Abs(spec); err != nil {
				return u, err
			}
		}
		if !slices.Contains(u.Anchors, spec) {
			u.Anchors = append(u.Anchors, spec)
		}
	}
	return u, nil
}

// readUsedAnchors reads the file of a folder; without one there are no anchors.
func readUsedAnchors(dir, fingerprint string) (u usedAnchors, err error) {
	path := filepath.Join(dir, fileAnchors)
	b, err := os.ReadFile(filepath.Clean(path))
	if errors.Is(err, fs.ErrNotExist) {
		return u, nil
	}
	if err != nil {
		return u, err
	}
	if err := json.Unmarshal(b, &u); err != nil {
		return u, fmt.Errorf("%s is damaged: restore it from the backup, or remove it if you know that nothing is missing from the journal", path)
	}
	if u.Root != fingerprint {
		return u, fmt.Errorf("%s is of another root key: it does not belong to this folder, remove it", path)
	}
	return u, nil
}

// write makes the file durably; it may name URLs with a secret.
func (u usedAnchors) write(dir string) error {
	b, err := json.MarshalIndent(u, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(dir, fileAnchors)
	f, err := os.OpenFile(filepath.Clean(path), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return syncFolder(dir)
}

func removeUsedAnchors(dir string) error {
	err := os.Remove(filepath.Join(dir, fileAnchors))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(err, syncFolder(dir))
}

// open parses the anchors.
func (u usedAnchors) open() ([]receipt.Anchor, error) {
	var out []receipt.Anchor
	for _, spec := range u.Anchors {
		a, err := receipt.ParseAnchor(spec)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", fileAnchors, err)
		}
		out = append(out, a)
	}
	return out, nil
}

// checkEarlierAnchors refuses a restored journal that ends below an anchor of
// before. When it holds what all of them saw, they are not asked again.
func (n *node) checkEarlierAnchors(ctx context.Context, keys *receipt.KeySet) error {
	settled := true
	for _, a := range n.earlier {
		signed, err := a.Read(ctx)
		if err != nil {
			settled = false
			n.log.Warn("an anchor of before the restore could not be read: that frames are missing would go unseen; make it reachable and start again, or remove "+fileAnchors+" if it is gone for good",
				"anchor", a.String(), "error", err)
			continue
		}
		err = receipt.CheckAnchor(ctx, n.journal, shard, signed, keys)
		if errors.Is(err, receipt.ErrCheckpoint) {
			return fmt.Errorf("anchor %s, of before the restore: %w. %s", a, err, otherKey(n.dir))
		}
		if err != nil {
			return fmt.Errorf("anchor %s, of before the restore: %w", a, err)
		}
	}
	if !settled {
		return nil
	}
	return removeUsedAnchors(n.dir)
}

// otherKey says what to do about an anchor that the keys of a backup did not sign.
func otherKey(dir string) string {
	return fmt.Sprintf("If keys were rotated after the backup, what came after it is missing: put the newer copy back, or its keys folder; to go on without it, remove %s", filepath.Join(dir, fileAnchors))
}

// anchorFinding is what restore found about one anchor.
type anchorFinding struct {
	Anchor string `json:"anchor"`
	State  string `json:"state"` // held, below, unread, or other: signed by a key that the backup does not have
	Note   string `json:"note,omitempty"`
}

// compareRestored compares the restored journal in dir with the anchors that
// its backup names.
func compareRestored(ctx context.Context, dir string, u usedAnchors) (_ []anchorFinding, err error) {
	keys, err := auth.LoadKeys(filepath.Join(dir, folderKeys))
	if err != nil {
		return nil, err
	}
	set, err := keySetOf(keys)
	if err != nil {
		return nil, err
	}
	anchors, err := u.open()
	if err != nil {
		return nil, err
	}
	j, err := sqlitejournal.Open(ctx, filepath.Join(dir, fileJournal), sqlitejournal.Options{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	out := []anchorFinding{}
	for _, a := range anchors {
		f := anchorFinding{Anchor: a.String(), State: "held"}
		signed, err := a.Read(ctx)
		if err != nil {
			f.State, f.Note = "unread", err.Error()
		} else if err := receipt.CheckAnchor(ctx, j, shard, signed, set); err != nil {
			below := (*receipt.BelowAnchorError)(nil)
			switch f.State, f.Note = "unread", err.Error(); {
			case errors.As(err, &below):
				f.State = "below"
			case errors.Is(err, receipt.ErrCheckpoint):
				f.State = "other"
			}
		}
		out = append(out, f)
	}
	return out, nil
}
