package app

import (
	"context"
	"errors"
	"fmt"
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
func certificatesOfTables(ctx context.Context, r store.Reader) ([]receipt.Certificate, error) {
	facts, err := r.Keys(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the certified keys from the tables: %w", err)
	}
	var certs receipt.Certificates
	for _, f := range facts {
		if err := certs.AddFact(f.Body, f.Kind == epro.KindKeyRetired); err != nil {
			return nil, err
		}
	}
	return certs.List(), nil
}

// certificatesIn reads the whole journal for them: for when there are no tables.
// Frames and facts that cannot be read are passed over; others name them. Each
// certificate is checked against the root key by whoever uses it.
func certificatesIn(ctx context.Context, j journal.Journal) ([]receipt.Certificate, error) {
	var certs receipt.Certificates
	var after journal.Position
	for {
		records, err := j.Read(ctx, shard, after, 64)
		var gap *journal.GapError
		if errors.As(err, &gap) && gap.Next > after+1 {
			after = gap.Next - 1
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the certified keys from the journal: %w", err)
		}
		if len(records) == 0 {
			return certs.List(), nil
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
				_ = certs.AddFact(f.Entries[i].Body, e.Kind == epro.KindKeyRetired) // one that cannot be read certifies nothing
			}
		}
	}
}
