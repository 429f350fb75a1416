package app

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/tidegate/tidegate/internal/auth"
)

type tokenCmd struct {
	Participant tokenParticipantCmd `cmd:"" help:"A participant's device."`
	Staff       tokenStaffCmd       `cmd:"" help:"A staff member; makes the staff member and the role if need be."`
	Relay       tokenRelayCmd       `cmd:"" help:"A site's relay or a bulk load, which may name participants."`
}

type tokenParticipantCmd struct {
	Data    string        `help:"Data folder." default:"data" type:"path" env:"TIDEGATE_DATA"`
	Patient string        `help:"Participant id, such as P-000001." required:""`
	Trial   string        `help:"Trial id, such as T001." required:""`
	TTL     time.Duration `help:"Life of the token." default:"1h"`
	Scope   []string      `help:"submit, read, or both." default:"submit,read"`
	Device  string        `help:"Device the token is bound to." default:"cli"`
	Epoch   uint32        `help:"Epoch; tokens of epochs below the one revoked are quarantined." default:"1"`
}

// Help shows an example.
func (tokenParticipantCmd) Help() string {
	return help("Prints the token and nothing else. Works beside a running server: it only reads keys/.", "tidegate token participant --data data/demo --patient P-000001 --trial T001")
}

// Run prints a token.
func (c tokenParticipantCmd) Run(con *console) error {
	scope, err := scopeOf(c.Scope)
	if err != nil {
		return err
	}
	return printToken(con, c.Data, auth.Claims{
		Kind: auth.KindParticipant, Scope: scope, Trial: c.Trial, Shard: shard, Participant: c.Patient, Device: c.Device,
		Epoch: c.Epoch, Expires: time.Now().Add(c.TTL),
	})
}

func scopeOf(words []string) (scope auth.Scope, err error) {
	for _, w := range words {
		switch strings.TrimSpace(w) {
		case "submit":
			scope |= auth.ScopeSubmit
		case "read":
			scope |= auth.ScopeRead
		default:
			return 0, usageError{fmt.Errorf("--scope: %q is neither submit nor read", w)}
		}
	}
	return scope, nil
}

func printToken(con *console, data string, claims auth.Claims) error {
	if claims.Expires.Before(time.Now()) {
		return usageError{fmt.Errorf("--ttl must be more than 0")}
	}
	keys, err := keysOf(data)
	if err != nil {
		return err
	}
	token, err := keys.Mint(claims)
	if err != nil {
		return usageError{err}
	}
	con.printf("%s\n", token)
	return nil
}

type tokenRelayCmd struct {
	Data  string        `help:"Data folder." default:"data" type:"path" env:"TIDEGATE_DATA"`
	Name  string        `help:"Name of the relay; it stands in the audit." required:""`
	Trial string        `help:"Trial id." required:""`
	Site  []string      `help:"Sites whose participants it may name; none means every site."`
	TTL   time.Duration `help:"Life of the token." default:"24h"`
}

// Help shows an example.
func (tokenRelayCmd) Help() string {
	return help("Prints the token and nothing else.", "tidegate token relay --data data/demo --name bulk-load --trial T001")
}

// Run prints a token.
func (c tokenRelayCmd) Run(con *console) error {
	return printToken(con, c.Data, auth.Claims{
		Kind: auth.KindRelay, Scope: auth.ScopeRelay, Trial: c.Trial, Shard: shard, Relay: c.Name, Sites: c.Site,
		Expires: time.Now().Add(c.TTL),
	})
}

type tokenStaffCmd struct {
	Data  string        `help:"Data folder." default:"data" type:"path" env:"TIDEGATE_DATA"`
	Role  string        `help:"coordinator, investigator, monitor, data-manager, sponsor, admin or unblinded." required:""`
	Name  string        `help:"Staff id; it stands in the audit." required:""`
	Trial string        `help:"Trial; without it every trial."`
	Site  string        `help:"Site of the trial; without it every site."`
	TTL   time.Duration `help:"Life of the token." default:"12h"`
	configFlag
}

// Help shows an example.
func (tokenStaffCmd) Help() string {
	return help("Prints the token and nothing else. Staff member and role become facts, the token's hash lies in the vault.\nBeside a running server, that server does the writing.", "tidegate token staff --data data/demo --role coordinator --name anna --trial T001")
}

// Run prints a token.
func (c tokenStaffCmd) Run(ctx context.Context, con *console) error {
	grant := auth.Grant{Role: auth.Role(c.Role), Trial: c.Trial, Site: c.Site}
	if err := grant.Validate(); err != nil {
		return usageError{err}
	}
	cfg, err := c.load(con, c.Data)
	if err != nil {
		return err
	}
	out, err := operate(ctx, con, cfg, opStaffToken, staffTokenRequest{
		StaffID: c.Name, Name: c.Name, Role: c.Role, Trial: c.Trial, Site: c.Site, Life: c.TTL,
	})
	if err != nil {
		return err
	}
	con.printf("%s\n", out.Token)
	return nil
}
