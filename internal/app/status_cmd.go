package app

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/tidegate/tidegate/internal/gateway"
)

type statusCmd struct {
	Data  string `help:"Data folder: its LOCK says where the server's admin listener is." default:"data" type:"path" env:"TIDEGATE_DATA"`
	Admin string `help:"Admin address to ask instead."`
	Ready bool   `help:"Exit code 0 as soon as the server takes requests, whatever else is not well: for health checks of containers."`
	JSON  bool   `help:"Print the server's JSON as it is."`
}

// Help shows an example.
func (statusCmd) Help() string {
	return help("Exit code 0 when the server is ready and every dependency is well, 1 when not, or when no server answers.\nFor people: a line for each dependency, then figures of intake and projector. For programs: --json.", "tidegate status --data data/demo")
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
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the server at %s answered with status %d: is this its admin address?", admin, resp.StatusCode)
	}
	var st serverStatus
	if err := json.Unmarshal(body, &st); err != nil {
		return fmt.Errorf("what %s answered is not a status: is this the admin address of tidegate?", admin)
	}
	if c.JSON {
		con.printf("%s\n", bytes.TrimSpace(body))
	} else {
		st.print(con)
	}
	if !st.well() && !(c.Ready && st.Ready) {
		return errFindings
	}
	return nil
}

// serverStatus is what this command reads of the server's answer.
type serverStatus struct {
	Version      string                   `json:"version"`
	Ready        bool                     `json:"ready"`
	NotReady     string                   `json:"notReady"`
	Dependencies map[string]gateway.State `json:"dependencies"`
	Intake       *struct {
		Facts       uint64  `json:"facts"`
		Frames      uint64  `json:"frames"`
		Open        int     `json:"open"`
		OldestMS    float64 `json:"oldestMs"`
		LastMS      float64 `json:"lastCommitMs"`
		Unresolved  bool    `json:"unresolved"`
		RefusedRoom uint64  `json:"refusedForRoom"`
		RefusedRate *uint64 `json:"refusedForRate"` // of gateways alone
	} `json:"intake"`
	Projector *struct {
		Applied  uint64  `json:"applied"`
		End      uint64  `json:"end"`
		BehindMS float64 `json:"behindMs"`
	} `json:"projector"`
}

func (st *serverStatus) well() bool {
	for _, d := range st.Dependencies {
		if !d.OK {
			return false
		}
	}
	return st.Ready
}

// print prints the status for people: a line for each dependency, then figures.
func (st *serverStatus) print(con *console) {
	names := slices.Sorted(maps.Keys(st.Dependencies))
	width := len("projector")
	for _, n := range names {
		width = max(width, len(n))
	}
	line := func(name, format string, args ...any) {
		con.printf("%-*s  %s\n", width, name, strings.TrimSpace(fmt.Sprintf(format, args...)))
	}
	ready := "yes"
	if !st.Ready {
		ready = "NO: " + st.NotReady
	}
	line("ready", "%s", ready)
	for _, n := range names {
		d := st.Dependencies[n]
		mark := ""
		if !d.OK {
			mark = "NOT WELL: "
			if !d.Since.IsZero() {
				d.State += " since " + d.Since.UTC().Format(time.RFC3339)
			}
		}
		line(n, "%s%s  %s", mark, d.State, d.Note)
	}
	con.printf("\n")
	if in := st.Intake; in != nil { // the projector role takes nothing
		unresolved := ""
		if in.Unresolved {
			unresolved = ", the outcome of a frame is not known"
		}
		line("intake", "%d facts in %d frames since the start, %d waiting (oldest %.0f ms), last commit %.1f ms%s", in.Facts, in.Frames, in.Open, in.OldestMS, in.LastMS, unresolved)
		tooFast := ""
		if in.RefusedRate != nil {
			tooFast = fmt.Sprintf(", %d too fast", *in.RefusedRate)
		}
		line("refused", "%d for want of room%s", in.RefusedRoom, tooFast)
	}
	switch p := st.Projector; {
	case p == nil:
		line("projector", "does not say how far it is")
	case p.Applied < p.End:
		line("projector", "at position %d of %d, the oldest frame waits %.0f ms", p.Applied, p.End, p.BehindMS)
	default:
		line("projector", "at position %d of %d, nothing waits", p.Applied, p.End)
	}
}
