package app

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

type statusCmd struct {
	Data  string `help:"Data folder: its LOCK says where the server's admin listener is." default:"data" type:"path" env:"TIDEGATE_DATA"`
	Admin string `help:"Admin address to ask instead."`
	JSON  bool   `help:"Print the server's JSON as it is."`
}

// Help shows an example.
func (statusCmd) Help() string {
	return help("Exit code 0 when every dependency is well, 1 when one is not or no server answers.", "tidegate status --data data/demo")
}

// Run asks a server how it is.
func (c statusCmd) Run(ctx context.Context, con *console) error {
	admin := c.Admin
	if admin == "" {
		h, held := holder(c.Data)
		if !held || h.Admin == "" {
			return fmt.Errorf("no server runs on %s", c.Data)
		}
		admin = h.Admin
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/status", nil)
	if err != nil {
		return usageError{err}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("the server at %s does not answer: %w", admin, err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if c.JSON {
		con.printf("%s\n", body)
	} else if err := printStatus(con, body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errFindings
	}
	return nil
}

// printStatus prints the JSON for people: one line a value, indented by depth.
func printStatus(con *console, body []byte) error {
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		return fmt.Errorf("the server's answer is no JSON: %w", err)
	}
	out, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	con.printf("%s\n", out)
	return nil
}
