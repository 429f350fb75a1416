package app

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/receipt"
	"github.com/tidegate/tidegate/internal/store/pgstore"
	"github.com/tidegate/tidegate/internal/store/sqlitestore"
)

type keysCmd struct {
	List    keysListCmd    `cmd:"" help:"List the signing keys."`
	Rotate  keysRotateCmd  `cmd:"" help:"Make a new signing key, or with --tokens a token key, and use it from now on."`
	Retire  keysRetireCmd  `cmd:"" help:"Retire a signing key that is no longer used, or was stolen."`
	Tokens  keysTokensCmd  `cmd:"" name:"retire-tokens" help:"Destroy a token key that was stolen: its tokens are refused."`
	Init    keysInitCmd    `cmd:"" help:"Make a root folder for many processes on PostgreSQL."`
	Issue   keysIssueCmd   `cmd:"" help:"Write the keys of one process of many, with a signing key of its own."`
	Pack    keysPackCmd    `cmd:"" help:"Put issued keys into one file, for a secret store."`
	Install keysInstallCmd `cmd:"" help:"Copy issued keys, as they are mounted, into a data folder."`
}

type keysListCmd struct {
	Data string `help:"Data folder." default:"data" type:"path" env:"TIDEGATE_DATA"`
	JSON bool   `help:"Print what GET /v1/keys answers."`
	configFlag
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
	issued, err := keys.Issued()
	if err != nil {
		return err
	}
	cfg, err := c.load(con, c.Data)
	if err != nil {
		return err
	}
	if !cfg.inPostgres() {
		if err := (&folder{dir: c.Data}).notTransferred(); err != nil {
			return err // its tables hear of no retirement any more
		}
	}
	certs, err := certificatesOf(ctx, c.Data, keys)
	if cfg.inPostgres() {
		more := keys.Certificates()
		if err == nil {
			more = certs.List()
		}
		certs, err = certificatesOnPostgres(ctx, cfg.Postgres, keys.RootPublic(), more)
	}
	if err != nil {
		return err
	}
	if !cfg.inPostgres() && !exists(filepath.Join(c.Data, fileJournal)) {
		con.note("%s has no journal, and only a journal tells which keys are retired: name the database with --config FILE or TIDEGATE_POSTGRES_URL, or ask GET /v1/keys of a gateway", c.Data)
	}
	if c.JSON {
		return con.printJSON(receipt.NewKeys(keys.RootPublic(), certs.List()...))
	}
	con.printf("root     %s\n", keys.Fingerprint())
	for _, k := range keys.TokenKeys() {
		state := "older, its tokens are valid"
		switch {
		case k.Current:
			state = "in use"
		case k.Retired:
			state = "destroyed, its tokens are refused"
		}
		con.printf("tokens   %d  %s\n", k.ID, state)
	}
	states := map[string]string{keys.Signer().KeyID().String(): "in use"}
	for _, i := range issued {
		states[i.Certificate.KeyID] = "issued to " + i.Name
	}
	for _, k := range certs.List() {
		state := states[k.KeyID]
		switch {
		case k.Retired != nil:
			state = strings.TrimSpace("retired " + time.Unix(k.Retired.At, 0).UTC().Format(time.RFC3339) + ", " + k.Retired.Reason + "  " + state)
		case state == "":
			state = "certified"
		}
		con.printf("signing  %s  since %s  %s\n", k.KeyID, time.Unix(k.NotBefore, 0).UTC().Format(time.RFC3339), state)
	}
	for _, k := range certs.Foreign() {
		con.printf("foreign  %q  not certified by this root: what it signs proves nothing\n", k.KeyID)
	}
	return nil
}

// certificatesOf are the certificates of a folder's keys and of those it issued,
// with their retirements. Those are facts, so beside a journal there is no
// answer without tables, rather than one that hides a stolen key. A root folder
// without a journal can only tell what it certified.
func certificatesOf(ctx context.Context, dir string, keys *auth.Keys) (_ *receipt.Certificates, err error) {
	certs := receipt.NewCertificates(keys.RootPublic())
	own := func() (*receipt.Certificates, error) {
		issued, err := keys.Issued()
		for _, c := range keys.Certificates() {
			certs.Add(c)
		}
		for _, i := range issued {
			certs.Add(i.Certificate)
		}
		return certs, err
	}
	if !exists(filepath.Join(dir, fileJournal)) {
		return own()
	}
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
	for _, f := range facts {
		certs.AddFact(f.Body, f.Kind == epro.KindKeyRetired)
	}
	return own()
}

// certificatesOnPostgres are those that the tables tell, with their retirements,
// and what a folder has more.
func certificatesOnPostgres(ctx context.Context, pg PostgresConfig, root ed25519.PublicKey, more []receipt.Certificate) (_ *receipt.Certificates, err error) {
	tables, err := pgstore.Open(ctx, pgstore.Options{Postgres: pg.options(pg.storeURL(), "keys"), ReadOnly: true})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there are no tables, and only they tell which keys are retired: start a projector, or run `tidegate rebuild --config FILE` (%w)", err)
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, tables.Close()) }()
	certs, err := certificatesOfTables(ctx, tables, root)
	if err != nil {
		return nil, err
	}
	for _, c := range more {
		certs.Add(c)
	}
	return certs, nil
}

type keysRotateCmd struct {
	Data   string `help:"Data folder; with --tokens also a root folder." default:"data" type:"path" env:"TIDEGATE_DATA"`
	Tokens bool   `help:"Make a new token key instead: participants' and relays' tokens are made with it from now on."`
	JSON   bool   `help:"Print JSON."`
	configFlag
}

// Help shows an example.
func (keysRotateCmd) Help() string {
	return help(`The root key certifies the new one, so keys/root.key must be at hand. Older receipts stay valid.
Beside a running server, that server does it.

With --tokens: a new token key, for which no root key is needed. Older tokens stay valid until their key is destroyed with
keys retire-tokens. On many machines it is made in the root folder; then issue keys again to every gateway, start each again, and
make no token before that: a gateway that was not started again refuses tokens of a key that it does not know.`, "tidegate keys rotate --data data")
}

// Run rotates the signing key.
func (c keysRotateCmd) Run(ctx context.Context, con *console) error {
	if c.Tokens {
		return c.tokens(ctx, con)
	}
	cfg, err := c.load(con, c.Data)
	if err != nil {
		return err
	}
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
	configFlag
}

// Help shows an example.
func (keysRetireCmd) Help() string {
	return help("", "tidegate keys retire 0123456789abcdef --data data --reason compromised")
}

// Run retires a key.
func (c keysRetireCmd) Run(ctx context.Context, con *console) error {
	if _, err := receipt.ParseKeyID(c.KeyID); err != nil {
		return usageError{fmt.Errorf("%q is no signing key: %w, as keys list prints it", c.KeyID, err)}
	}
	cfg, err := c.load(con, c.Data)
	if err != nil {
		return err
	}
	if _, err := operate(ctx, con, cfg, opRetire, retireRequest{KeyID: c.KeyID, Reason: c.Reason}); err != nil {
		return err
	}
	if c.JSON {
		return con.printJSON(map[string]string{"keyId": c.KeyID, "reason": c.Reason})
	}
	con.printf("%s is retired as %s.\n", c.KeyID, c.Reason)
	return nil
}
