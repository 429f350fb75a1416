package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/tidegate/tidegate/internal/auth"
	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/receipt"
	"github.com/tidegate/tidegate/internal/registry"
	"github.com/tidegate/tidegate/internal/store"
)

// An operation is something that writes and that the operator asks for on the
// command line. With a server on the folder it runs there, over the admin
// listener, with a token that only who can read keys/ can make; without one the
// command takes the folder's lock and runs it itself. On PostgreSQL it always
// runs it itself.
type operation[In, Out any] struct {
	path string // below /control/
	run  func(n *node, ctx context.Context, in In) (Out, error)
}

// staffTokenRequest asks for a staff member with one role, and a token.
type staffTokenRequest struct {
	StaffID string        `json:"staffId"`
	Name    string        `json:"name"`
	Role    string        `json:"role"`
	Trial   string        `json:"trial"`
	Site    string        `json:"site"`
	Life    time.Duration `json:"life"`
}

type tokenAnswer struct {
	Token string `json:"token"`
}

type keyAnswer struct {
	KeyID string `json:"keyId"`
}

type retireRequest struct {
	KeyID  string `json:"keyId"`
	Reason string `json:"reason"`
}

var (
	opStaffToken = operation[staffTokenRequest, tokenAnswer]{"staff-token", (*node).staffToken}
	opRotate     = operation[struct{}, keyAnswer]{"keys/rotate", (*node).rotateKey}
	opRetire     = operation[retireRequest, keyAnswer]{"keys/retire", (*node).retireKey}
)

// staffToken makes what is missing of the staff member, and a credential.
func (n *node) staffToken(ctx context.Context, in staffTokenRequest) (tokenAnswer, error) {
	grant := auth.Grant{Role: auth.Role(in.Role), Trial: in.Trial, Site: in.Site}
	if err := grant.Validate(); err != nil {
		return tokenAnswer{}, err
	}
	s, err := n.store.Staff(ctx, in.StaffID)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return tokenAnswer{}, err
	}
	if s.Removed {
		return tokenAnswer{}, fmt.Errorf("staff member %s was removed: use another --name", in.StaffID)
	}
	if errors.Is(err, store.ErrNotFound) {
		add := registry.Command{Kind: epro.KindStaffAdded, ID: epro.NewUUID(), Actor: systemActor("operator"), Body: epro.StaffAdded{StaffID: in.StaffID, Name: in.Name}}
		if err := n.applied(ctx, add, "exists"); err != nil {
			return tokenAnswer{}, err
		}
	}
	has := false
	for _, g := range s.Grants {
		has = has || g == store.Grant{Role: in.Role, TrialID: in.Trial, SiteID: in.Site}
	}
	if !has {
		role := registry.Command{Kind: epro.KindStaffRoleGranted, ID: epro.NewUUID(), Actor: systemActor("operator"), Body: epro.StaffRole{StaffID: in.StaffID, Role: in.Role, TrialID: in.Trial, SiteID: in.Site}}
		if err := n.applied(ctx, role, "exists"); err != nil {
			return tokenAnswer{}, err
		}
	}
	token, credential, err := auth.NewStaffToken(in.StaffID, time.Now(), in.Life)
	if err != nil {
		return tokenAnswer{}, err
	}
	return tokenAnswer{token}, n.vault.CreateCredential(ctx, credential)
}

// applied writes a command and waits for it; a rejection with the code given
// means that it was so already.
func (n *node) applied(ctx context.Context, c registry.Command, fine string) error {
	out, err := n.apply(ctx, c)
	if err != nil {
		return err
	}
	if !out.Applied && out.Code != fine {
		return fmt.Errorf("rejected: %s", out.Reason)
	}
	return nil
}

func (n *node) rotateKey(ctx context.Context, _ struct{}) (keyAnswer, error) {
	if n.cfg.inPostgres() {
		return keyAnswer{}, errors.New("each process on PostgreSQL has signing keys of its own: issue it a new one with `tidegate keys issue --data ROOT --to DIR --name NAME` and start it again; then retire the old one with `tidegate keys retire`")
	}
	cert, err := n.keys.NewSigningKey()
	if err != nil {
		return keyAnswer{}, err
	}
	// The certificate is durable before the first frame is signed with the key.
	add := registry.Command{Kind: epro.KindKeyAdded, ID: seedID("key.added", cert.KeyID), Actor: systemActor("keys"), Body: cert}
	if err := n.applied(ctx, add, "exists"); err != nil {
		return keyAnswer{}, err
	}
	id, err := receipt.ParseKeyID(cert.KeyID)
	if err != nil {
		return keyAnswer{}, err
	}
	if err := n.keys.UseSigningKey(id); err != nil {
		return keyAnswer{}, err
	}
	n.intake.SetSigner(n.keys.Signer())
	n.log.Info("frames are signed by another key from now on", "keyId", cert.KeyID)
	return keyAnswer{cert.KeyID}, nil
}

func (n *node) retireKey(ctx context.Context, in retireRequest) (keyAnswer, error) {
	id, err := receipt.ParseKeyID(in.KeyID)
	if err != nil {
		return keyAnswer{}, err
	}
	r, err := n.keys.Retire(id, in.Reason)
	if err != nil {
		return keyAnswer{}, err
	}
	if err := n.tellIssued(ctx, in.KeyID); err != nil {
		return keyAnswer{}, err
	}
	retire := registry.Command{Kind: epro.KindKeyRetired, ID: seedID("key.retired", in.KeyID, in.Reason), Actor: systemActor("keys"), Body: r}
	return keyAnswer{in.KeyID}, n.applied(ctx, retire, "exists")
}

// tellIssued writes the certificate of a key that was issued and whose process
// may never have started: a retirement counts only after it.
func (n *node) tellIssued(ctx context.Context, keyID string) error {
	issued, err := n.keys.Issued()
	if err != nil {
		return err
	}
	for _, i := range issued {
		if i.Certificate.KeyID != keyID {
			continue
		}
		add := registry.Command{Kind: epro.KindKeyAdded, ID: seedID("key.added", keyID), Actor: systemActor("keys"), Body: i.Certificate}
		return n.applied(ctx, add, "exists")
	}
	return nil
}

// control serves the operations below /control/ of the admin listener.
func (n *node) control() http.Handler {
	mux := http.NewServeMux()
	mount(mux, n, opStaffToken)
	mount(mux, n, opRotate)
	mount(mux, n, opRetire)
	mount(mux, n, opNewTokenKey)
	mount(mux, n, opRetireTokenKey)
	return mux
}

// maxControlBytes bounds the body of a control request.
const maxControlBytes = 64 << 10

func mount[In, Out any](mux *http.ServeMux, n *node, op operation[In, Out]) {
	mux.HandleFunc("POST /control/"+op.path, func(w http.ResponseWriter, r *http.Request) {
		token, _ := bytes.CutPrefix([]byte(r.Header.Get("Authorization")), []byte("Bearer "))
		if err := n.keys.VerifyOperator(string(token), time.Now()); err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		var in In
		dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxControlBytes))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&in); err != nil {
			http.Error(w, "the request is not what this version of tidegate sends: use the same version for server and command", http.StatusBadRequest)
			return
		}
		out, err := op.run(n, r.Context(), in)
		if err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(out)
	})
}

// operate runs an operation on the folder: in the server that holds it, or here.
func operate[In, Out any](ctx context.Context, con *console, cfg Config, op operation[In, Out], in In) (out Out, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	log := newLog(con.err, LogConfig{Format: "text", Level: "error"})
	n, err := openCommand(ctx, cfg, "token", false, commandPath(cfg), (*node).check, log)
	var locked *LockedError
	if errors.As(err, &locked) && locked.Holder.Admin != "" {
		return ask(ctx, cfg.Data, locked.Holder.Admin, op, in)
	}
	if err != nil {
		return out, err
	}
	out, err = op.run(n, ctx, in)
	return out, errors.Join(err, n.close(context.WithoutCancel(ctx)))
}

func ask[In, Out any](ctx context.Context, dir, admin string, op operation[In, Out], in In) (out Out, err error) {
	keys, err := auth.LoadKeys(dir + "/" + folderKeys)
	if err != nil {
		return out, err
	}
	body, err := json.Marshal(in)
	if err != nil {
		return out, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+admin+"/control/"+op.path, bytes.NewReader(body))
	if err != nil {
		return out, err
	}
	req.Header.Set("Authorization", "Bearer "+keys.MintOperator(time.Now()))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return out, fmt.Errorf("ask the server that holds the data folder, at %s: %w", admin, err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxControlBytes))
	if err != nil {
		return out, fmt.Errorf("ask the server that holds the data folder: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return out, errors.New(string(bytes.TrimSpace(answer)))
	}
	return out, json.Unmarshal(answer, &out)
}
