package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/receipt"
	"github.com/tidegate/tidegate/internal/store/sqlitestore"
)

type keysCmd struct {
	List   keysListCmd   `cmd:"" help:"List the signing keys."`
	Rotate keysRotateCmd `cmd:"" help:"Make a new signing key and sign with it from now on."`
	Retire keysRetireCmd `cmd:"" help:"Retire a signing key that is no longer used, or was stolen."`
}

type keysListCmd struct {
	Data string `help:"Data folder." default:"data" type:"path" env:"TIDEGATE_DATA"`
	JSON bool   `help:"Print what GET /v1/keys answers."`
}

// Help shows an example.
func (keysListCmd) Help() string {
	return help("", "tidegate keys list --data data --json > keys.json")
}

// Run lists the keys.
func (c keysListCmd) Run(ctx context.Context, con *console) error {
	keys, err := keysOf(c.Data)
	if err != nil {
		return err
	}
	certs, err := certificatesOf(ctx, c.Data, keys)
	if err != nil {
		return err
	}
	if c.JSON {
		return con.printJSON(receipt.NewKeys(keys.RootPublic(), certs...))
	}
	con.printf("root     %s\n", keys.Fingerprint())
	current := keys.Signer().KeyID().String()
	for _, k := range certs {
		state := "certified"
		switch {
		case k.Retired != nil:
			state = "retired " + time.Unix(k.Retired.At, 0).UTC().Format(time.RFC3339) + ", " + k.Retired.Reason
		case k.KeyID == current:
			state = "in use"
		}
		con.printf("signing  %s  since %s  %s\n", k.KeyID, time.Unix(k.NotBefore, 0).UTC().Format(time.RFC3339), state)
	}
	return nil
}

// certificatesOf are the certificates of a folder's keys, with their
// retirements. Those are facts, so without tables there is no answer rather
// than one that hides a stolen key.
func certificatesOf(ctx context.Context, dir string, keys *auth.Keys) (_ []receipt.Certificate, err error) {
	tables, err := sqlitestore.OpenReader(ctx, filepath.Join(dir, fileStore))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s has no tables, and only they tell which keys are retired: tidegate rebuild --data %s", dir, dir)
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, tables.Close()) }()
	facts, err := tables.Keys(ctx)
	if err != nil {
		return nil, err
	}
	var certs receipt.Certificates
	for _, f := range facts {
		if err := certs.AddFact(f.Body, f.Kind == epro.KindKeyRetired); err != nil {
			return nil, err
		}
	}
	for _, c := range keys.Certificates() {
		certs.Add(c)
	}
	return certs.List(), nil
}

type keysRotateCmd struct {
	Data string `help:"Data folder." default:"data" type:"path" env:"TIDEGATE_DATA"`
	JSON bool   `help:"Print JSON."`
}

// Help shows an example.
func (keysRotateCmd) Help() string {
	return help("The root key certifies the new one, so keys/root.key must be at hand. Older receipts stay valid.\nBeside a running server, that server does it.", "tidegate keys rotate --data data")
}

// Run rotates the signing key.
func (c keysRotateCmd) Run(ctx context.Context, con *console) error {
	cfg, err := LoadConfig("", con.environ)
	if err != nil {
		return err
	}
	cfg.Data = c.Data
	out, err := operate(ctx, con, cfg, opRotate, struct{}{})
	if err != nil {
		return err
	}
	if c.JSON {
		return con.printJSON(out)
	}
	con.printf("%s signs from now on. Receipts signed by older keys stay valid.\n", out.KeyID)
	return nil
}

type keysRetireCmd struct {
	Data   string `help:"Data folder." default:"data" type:"path" env:"TIDEGATE_DATA"`
	KeyID  string `arg:"" help:"Key to retire, as keys list prints it."`
	Reason string `help:"rotated: its receipts stay valid. compromised: its receipts prove nothing any more." enum:"rotated,compromised" default:"rotated"`
	JSON   bool   `help:"Print JSON."`
}

// Help shows an example.
func (keysRetireCmd) Help() string {
	return help("", "tidegate keys retire 0123456789abcdef --data data --reason compromised")
}

// Run retires a key.
func (c keysRetireCmd) Run(ctx context.Context, con *console) error {
	cfg, err := LoadConfig("", con.environ)
	if err != nil {
		return err
	}
	cfg.Data = c.Data
	if _, err := operate(ctx, con, cfg, opRetire, retireRequest{KeyID: c.KeyID, Reason: c.Reason}); err != nil {
		return err
	}
	if c.JSON {
		return con.printJSON(map[string]string{"keyId": c.KeyID, "reason": c.Reason})
	}
	con.printf("%s is retired as %s.\n", c.KeyID, c.Reason)
	return nil
}
