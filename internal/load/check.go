package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/receipt"
)

// checker checks receipts as a phone does that knows the root key's
// fingerprint: a report whose receipt does not prove it is kept and sent again.
type checker struct {
	trial       string
	fingerprint string
	fetch       func(ctx context.Context) ([]byte, error) // GET /v1/keys

	mu   sync.RWMutex
	keys *receipt.KeySet
}

func newChecker(keys *auth.Keys, trial string, fetch func(context.Context) ([]byte, error)) (*checker, error) {
	certs := keys.Certificates()
	// In the second shape each gateway signs with a key that was issued from this
	// folder. To know them from the start matters: a gateway whose tables are away
	// takes reports, and cannot answer for its keys.
	issued, err := keys.Issued()
	if err != nil {
		return nil, fmt.Errorf("keys of the data folder: %w", err)
	}
	for _, i := range issued {
		certs = append(certs, i.Certificate)
	}
	set, err := receipt.NewKeySet(receipt.NewKeys(keys.RootPublic(), certs...), keys.Fingerprint())
	if err != nil {
		return nil, fmt.Errorf("keys of the data folder: %w", err)
	}
	return &checker{trial: trial, fingerprint: keys.Fingerprint(), fetch: fetch, keys: set}, nil
}

var errOtherReceipt = errors.New("the receipt is another report's, or of other bytes than were sent")

// check says why r does not prove that this report is durable, or nil.
func (c *checker) check(ctx context.Context, r *receipt.Receipt, want *report) error {
	fact, err := r.Fact()
	if err != nil {
		return err
	}
	if fact.Kind != epro.KindReport || fact.ID != want.id || fact.Trial != c.trial || fact.Subject != want.patient || !r.MatchesBody(want.body) {
		return errOtherReceipt
	}
	keys, err := c.keysFor(ctx, r.KeyID)
	if err != nil {
		return err
	}
	return r.Check(keys)
}

// keysFor returns keys with this one among them, if the server has it: signing
// keys may have been rotated since the start.
func (c *checker) keysFor(ctx context.Context, id receipt.KeyID) (*receipt.KeySet, error) {
	c.mu.RLock()
	keys := c.keys
	c.mu.RUnlock()
	if keys.Has(id) {
		return keys, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.keys.Has(id) {
		return c.keys, nil
	}
	data, err := c.fetch(ctx)
	if err != nil {
		return nil, fmt.Errorf("fetch the keys: %w", err)
	}
	if keys, err = receipt.ParseKeys(data, c.fingerprint); err != nil {
		return nil, err
	}
	c.keys = keys
	return keys, nil
}

// fetchKeys asks the server for its certified keys.
func fetchKeys(way http.RoundTripper, target string) func(context.Context) ([]byte, error) {
	return func(ctx context.Context) ([]byte, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, target+"/v1/keys", http.NoBody)
		if err != nil {
			return nil, err
		}
		resp, err := way.RoundTrip(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("the server answered %d", resp.StatusCode)
		}
		return io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	}
}
