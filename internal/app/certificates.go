package app

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/journal"
	"github.com/tidegate/tidegate/internal/receipt"
	"github.com/tidegate/tidegate/internal/store"
)

// joined is the first list, with its retirements, and what the second has more.
func joined(first, second []receipt.Certificate) []receipt.Certificate {
	all := slices.Clone(first)
	for _, c := range second {
		if !slices.ContainsFunc(all, func(have receipt.Certificate) bool { return have.KeyID == c.KeyID }) {
			all = append(all, c)
		}
	}
	return all
}

// certificatesOfTables are those that the facts tell, with their retirements.
func certificatesOfTables(ctx context.Context, r store.Reader, root ed25519.PublicKey) (*receipt.Certificates, error) {
	facts, err := r.Keys(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the certified keys from the tables: %w", err)
	}
	certs := receipt.NewCertificates(root)
	for _, f := range facts {
		certs.AddFact(f.Body, f.Kind == epro.KindKeyRetired)
	}
	return certs, nil
}

// certificatesIn reads the whole journal for them: for when there are no tables.
// Frames and facts that cannot be read are passed over; others name them.
func certificatesIn(ctx context.Context, j reader, root ed25519.PublicKey) (*receipt.Certificates, error) {
	certs := receipt.NewCertificates(root)
	err := keyFacts(ctx, j, math.MaxUint64, func(body []byte, retired bool) bool {
		certs.AddFact(body, retired)
		return true
	})
	return certs, err
}

// reader is the part of a journal that is read.
type reader interface {
	Read(ctx context.Context, shard uint32, after journal.Position, limit int) ([]journal.Record, error)
}

// keyFacts calls fn for each key.added and key.retired fact up to a position,
// until it returns false.
func keyFacts(ctx context.Context, j reader, upTo journal.Position, fn func(body []byte, retired bool) bool) error {
	var after journal.Position
	for {
		records, err := j.Read(ctx, shard, after, 64)
		var gap *journal.GapError
		if errors.As(err, &gap) && gap.Next > after+1 {
			after = gap.Next - 1
			continue
		}
		if err != nil {
			return fmt.Errorf("read the certified keys from the journal: %w", err)
		}
		if len(records) == 0 || after >= upTo {
			return nil
		}
		for _, r := range records {
			after = r.Position
			f, err := journal.DecodeFrame(r.Bytes)
			if err != nil {
				continue
			}
			for i := range f.Entries {
				e, err := epro.DecodeEnvelope(f.Entries[i].Envelope)
				if err != nil || e.Kind != epro.KindKeyAdded && e.Kind != epro.KindKeyRetired {
					continue
				}
				if !fn(f.Entries[i].Body, e.Kind == epro.KindKeyRetired) {
					return nil
				}
			}
		}
	}
}
