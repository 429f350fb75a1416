package app

import (
	"context"
	"errors"
)

// Token keys lie in the keys folder and nowhere else: no fact names them, so
// what changes them needs no journal, and works in a root folder too.

type tokenKeyRequest struct {
	ID uint32 `json:"id"`
}

type tokenKeyAnswer struct {
	TokenKey uint32 `json:"tokenKey"`
}

var (
	opNewTokenKey    = operation[struct{}, tokenKeyAnswer]{"keys/rotate-tokens", (*node).newTokenKey}
	opRetireTokenKey = operation[tokenKeyRequest, tokenKeyAnswer]{"keys/retire-tokens", (*node).retireTokenKey}
)

func (n *node) newTokenKey(context.Context, struct{}) (tokenKeyAnswer, error) {
	id, err := n.keys.NewTokenKey()
	if err == nil {
		n.log.Info("tokens are made with another key from now on", "tokenKey", id)
	}
	return tokenKeyAnswer{id}, err
}

func (n *node) retireTokenKey(_ context.Context, in tokenKeyRequest) (tokenKeyAnswer, error) {
	err := n.keys.RetireTokenKey(in.ID)
	if err == nil {
		n.log.Info("tokens of a key are refused from now on", "tokenKey", in.ID)
	}
	return tokenKeyAnswer{in.ID}, err
}

// operateKeys runs an operation that changes the keys folder alone: in the
// server that holds the folder, or here.
func operateKeys[In, Out any](ctx context.Context, con *console, dir string, op operation[In, Out], in In) (out Out, err error) {
	f, err := prepareFolder(dir, "keys", false, newLog(con.err, LogConfig{Format: "text", Level: "error"}))
	var locked *LockedError
	if errors.As(err, &locked) && locked.Holder.Admin != "" {
		return ask(ctx, dir, locked.Holder.Admin, op, in)
	}
	if err != nil {
		return out, err
	}
	out, err = op.run(&node{folder: f}, ctx, in)
	return out, errors.Join(err, f.close())
}

// issueAgain says what to do where other processes have keys of this folder.
func issueAgain(con *console, dir string) error {
	keys, err := keysOf(dir)
	if err != nil {
		return err
	}
	issued, err := keys.Issued()
	if err != nil || len(issued) == 0 {
		return err
	}
	con.printf("Other processes hear of it when they have keys of now: for each gateway,\n  tidegate keys issue --data %s --name NAME --to ITS-FOLDER\nand start it again.\n", dir)
	return nil
}

// tokens makes a new token key.
func (c keysRotateCmd) tokens(ctx context.Context, con *console) error {
	out, err := operateKeys(ctx, con, c.Data, opNewTokenKey, struct{}{})
	if err != nil {
		return err
	}
	if c.JSON {
		return con.printJSON(out)
	}
	con.printf("Tokens are made with token key %d from now on. Older tokens stay valid until their key is destroyed: tidegate keys retire-tokens %d --data %s\n", out.TokenKey, out.TokenKey-1, c.Data)
	return issueAgain(con, c.Data)
}

type keysTokensCmd struct {
	Data string `help:"Data folder or root folder." default:"data" type:"path" env:"TIDEGATE_DATA"`
	ID   uint32 `arg:"" name:"number" help:"Token key to destroy, as keys list numbers it."`
	JSON bool   `help:"Print JSON."`
}

// Help shows an example.
func (keysTokensCmd) Help() string {
	return help(`Every token that was made with the key is refused from then on, and its phone or relay needs a new one. This cannot be undone.
Make a new key first, with keys rotate --tokens. Staff's tokens are not made with such a key. Beside a running server, that server does it.
On many machines do it in the root folder; then issue keys again to every gateway and start each again: one that was not still takes the stolen
tokens.`, "tidegate keys retire-tokens 1 --data data")
}

// Run destroys a token key.
func (c keysTokensCmd) Run(ctx context.Context, con *console) error {
	out, err := operateKeys(ctx, con, c.Data, opRetireTokenKey, tokenKeyRequest{c.ID})
	if err != nil {
		return err
	}
	if c.JSON {
		return con.printJSON(out)
	}
	con.printf("Token key %d is destroyed: its tokens are refused, and their phones need new ones.\n", out.TokenKey)
	return issueAgain(con, c.Data)
}
