package receipt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Anchor keeps the newest signed checkpoint of a shard where the journal's own
// disk cannot take it back: another disk, another host.
//
// Write returns nil only when the checkpoint is durable there; a failed Write
// leaves the one before it. Read returns the newest, or [ErrNoAnchor]. Both are
// safe for concurrent use and obey their context. String names the anchor for
// people and holds no secret.
type Anchor interface {
	Write(ctx context.Context, signed []byte) error
	Read(ctx context.Context) ([]byte, error)
	String() string
}

// ErrNoAnchor says that nothing was written to the anchor yet.
var ErrNoAnchor = errors.New("the anchor holds no checkpoint yet")

// DefaultAnchorPath is the anchor file of an installation that names none. It
// lies beside the data folder, not in it, so that a restored or copied data
// folder does not bring its own anchor along; and it carries the root key's
// name, so that a new installation in a folder of the same name has its own.
func DefaultAnchorPath(dataDir, fingerprint string) (string, error) {
	abs, err := filepath.Abs(dataDir)
	if err != nil {
		return "", fmt.Errorf("find the default anchor: %w", err)
	}
	return filepath.Join(filepath.Dir(abs), filepath.Base(abs)+".anchors", short(fingerprint)+".txt"), nil
}

// ParseAnchor reads an anchor as it is configured: http:// or https:// for a
// URL, anything else is the path of a file.
func ParseAnchor(spec string) (Anchor, error) {
	if strings.HasPrefix(spec, "http://") || strings.HasPrefix(spec, "https://") {
		return NewURLAnchor(spec, nil)
	}
	if spec == "" || strings.Contains(spec, "://") {
		return nil, fmt.Errorf("anchor %q: give the path of a file, or an http:// or https:// URL", spec)
	}
	return NewFileAnchor(spec), nil
}

// FileAnchor is an anchor in a file. The checkpoint before the newest is kept
// beside it with the ending .prev.
type FileAnchor struct{ path string }

// NewFileAnchor returns the anchor in the file at path. Its folder is made by
// the first Write.
func NewFileAnchor(path string) *FileAnchor { return &FileAnchor{path: path} }

// String is the file's path.
func (a *FileAnchor) String() string { return a.path }

// Path is the file's path.
func (a *FileAnchor) Path() string { return a.path }

// Write replaces the file whole: a crash leaves the old checkpoint or the new.
func (a *FileAnchor) Write(ctx context.Context, signed []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	dir := filepath.Dir(a.path)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("write anchor %s: %w", a.path, err)
	}
	before, err := readBounded(a.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write anchor %s: %w", a.path, err)
	}
	if bytes.Equal(before, signed) {
		return nil
	}
	// Two renames and not a link: some file systems have no hard links. Between
	// them the file itself is whole and in place.
	if len(before) > 0 {
		if err := replaceFile(a.path+".prev", before); err != nil {
			return fmt.Errorf("write anchor %s: %w", a.path, err)
		}
	}
	if err := replaceFile(a.path, signed); err != nil {
		return fmt.Errorf("write anchor %s: %w", a.path, err)
	}
	return syncFolder(dir)
}

// Read returns the file's checkpoint. When the file is gone, the one before it
// still counts.
func (a *FileAnchor) Read(ctx context.Context) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for _, path := range []string{a.path, a.path + ".prev"} {
		b, err := readBounded(path)
		if err == nil {
			return b, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read anchor %s: %w", path, err)
		}
	}
	return nil, ErrNoAnchor
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // nothing was written
	return readAll(f)
}

func readAll(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxCheckpointBytes+1))
	if err == nil && len(b) > MaxCheckpointBytes {
		err = errors.New("longer than any checkpoint")
	}
	return b, err
}

// replaceFile makes b the content of the file at path, all of it or nothing.
func replaceFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// syncFolder makes renames in a folder survive a power cut.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync the folder of an anchor: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync the folder of an anchor: %w", err)
	}
	return nil
}

// URLAnchor is an anchor behind HTTP. The contract of the other side:
//
//   - PUT with the checkpoint as text/plain: 200, 201 or 204 once it is durable there;
//   - GET: 200 with the bytes of the last PUT, or 404 when there was none.
//
// It needs to understand nothing. One that keeps every version, or that only
// takes checkpoints with more frames than before, is stronger: then not even
// the operator of this machine can take one back. Credentials may stand in the
// URL (https://user:secret@host/…); they are never printed.
type URLAnchor struct {
	url    *url.URL
	client *http.Client
}

// urlAnchorTimeout bounds one exchange.
const urlAnchorTimeout = 5 * time.Second

// NewURLAnchor returns the anchor at an http or https URL; a nil client means
// one with a time-out of 5 s. Redirects are not followed.
func NewURLAnchor(raw string, client *http.Client) (*URLAnchor, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("anchor: not an http:// or https:// URL") // without the text: it may hold a secret
	}
	if client == nil {
		client = &http.Client{
			Timeout:       urlAnchorTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	return &URLAnchor{url: u, client: client}, nil
}

// String is the URL without credentials and query.
func (a *URLAnchor) String() string { return a.url.Scheme + "://" + a.url.Host + a.url.Path }

// Write sends the checkpoint.
func (a *URLAnchor) Write(ctx context.Context, signed []byte) error {
	status, _, err := a.exchange(ctx, http.MethodPut, signed)
	if err == nil && status != http.StatusOK && status != http.StatusCreated && status != http.StatusNoContent {
		err = fmt.Errorf("it answered with status %d", status)
	}
	if err != nil {
		return fmt.Errorf("write anchor %s: %w", a, err)
	}
	return nil
}

// Read fetches the newest checkpoint.
func (a *URLAnchor) Read(ctx context.Context) ([]byte, error) {
	status, body, err := a.exchange(ctx, http.MethodGet, nil)
	switch {
	case err == nil && status == http.StatusNotFound:
		return nil, ErrNoAnchor
	case err == nil && status != http.StatusOK:
		err = fmt.Errorf("it answered with status %d", status)
	}
	if err != nil {
		return nil, fmt.Errorf("read anchor %s: %w", a, err)
	}
	return body, nil
}

func (a *URLAnchor) exchange(ctx context.Context, method string, body []byte) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, urlAnchorTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, a.url.String(), bytes.NewReader(body))
	if err != nil {
		return 0, nil, errors.New("the URL cannot be asked")
	}
	if body != nil {
		req.Header.Set("Content-Type", "text/plain; charset=utf-8")
	}
	resp, err := a.client.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without the URL, which may hold a secret
		}
		return 0, nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end, or given up
	b, err := readAll(resp.Body)
	return resp.StatusCode, b, err
}

// SameFilesystem says whether two paths, or the nearest folders above them that
// exist, lie on one file system: an anchor there is lost or rolled back together
// with what it is to watch. It says false where the system does not tell.
func SameFilesystem(a, b string) bool {
	da, ok1 := device(existing(a))
	db, ok2 := device(existing(b))
	return ok1 && ok2 && da == db
}

func existing(path string) string {
	path, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	for {
		if _, err := os.Stat(path); err == nil || filepath.Dir(path) == path {
			return path
		}
		path = filepath.Dir(path)
	}
}
