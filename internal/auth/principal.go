package auth

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tidegate/tidegate/internal/epro"
)

// Grant gives a staff member a role. An empty trial means every trial, an
// empty site every site of the trial.
type Grant struct {
	Role  Role   `json:"role"`
	Trial string `json:"trial,omitempty"`
	Site  string `json:"site,omitempty"`
}

// Validate says what is wrong with a grant, or nil.
func (g Grant) Validate() error {
	if !g.Role.Valid() {
		return fmt.Errorf("role must be one of %v", Roles())
	}
	if g.Trial == "" {
		if g.Site != "" {
			return errors.New("site needs a trial: sites of different trials may have the same id")
		}
		return nil
	}
	if err := epro.ValidID(g.Trial); err != nil {
		return fmt.Errorf("trial %w", err)
	}
	if g.Site == "" {
		return nil
	}
	if err := epro.ValidID(g.Site); err != nil {
		return fmt.Errorf("site %w", err)
	}
	return nil
}

// Principal is who makes a request, however the person or device proved it.
// It lives as long as the request. The zero value may do nothing.
type Principal struct {
	Kind    Kind
	StaffID string  // staff only
	Roles   []Grant // staff only: the grants in force now, from facts
	Claims  Claims  // participants and relays only: what the token said
}

// TokenPrincipal is the principal of a verified participant's or relay's token.
func TokenPrincipal(c Claims) Principal { return Principal{Kind: c.Kind, Claims: c} }

// StaffPrincipal is a staff member with the grants in force now.
func StaffPrincipal(staffID string, grants []Grant) Principal {
	return Principal{Kind: KindStaff, StaffID: staffID, Roles: grants}
}

// OperatorPrincipal is whoever can read the keys folder.
func OperatorPrincipal() Principal { return Principal{Kind: KindOperator} }

// operatorName is the operator's actor id in the audit.
const operatorName = "operator"

// Actor is the principal's name in facts and in the audit.
func (p *Principal) Actor() epro.Actor {
	switch p.Kind {
	case KindParticipant:
		return epro.Actor{Type: epro.ActorParticipant, ID: p.Claims.Participant, Device: p.Claims.Device}
	case KindRelay:
		return epro.Actor{Type: epro.ActorRelay, ID: p.Claims.Relay, Device: strings.Join(p.Claims.Sites, ",")}
	case KindStaff:
		return epro.Actor{Type: epro.ActorStaff, ID: p.StaffID}
	case KindOperator:
		return epro.Actor{Type: epro.ActorSystem, ID: operatorName}
	}
	return epro.Actor{}
}

// Has says whether a participant's or relay's token has the scope. Staff and
// operators have none: what they may do is asked with [Principal.May].
func (p *Principal) Has(scope Scope) bool {
	return (p.Kind == KindParticipant || p.Kind == KindRelay) && p.Claims.Scope.Has(scope)
}

// May says whether the principal may do something to a site of a trial. An
// empty site asks for every site of the trial at once, an empty trial for
// every trial at once; both need a grant as wide. A site is ignored by actions
// that concern a trial as a whole.
//
// Participants and relays may do nothing of this. The operator holds the keys
// and acts as an administrator, so reads no health data through the API.
func (p *Principal) May(action Action, trial, site string) bool {
	return slices.ContainsFunc(p.grants(), func(g Grant) bool { return g.covers(action, trial, site) })
}

// grants is what the matrix is asked about.
func (p *Principal) grants() []Grant {
	switch p.Kind {
	case KindStaff:
		return p.Roles
	case KindOperator:
		return []Grant{{Role: RoleAdmin}}
	case KindParticipant, KindRelay:
	}
	return nil
}

func (g Grant) covers(action Action, trial, site string) bool {
	if !g.allows(action) {
		return false
	}
	everyTrial := g.Trial == ""
	inTrial := everyTrial || g.Trial == trial // an empty trial is "every trial": only the first covers it
	switch reaches[action] {
	case reachSite:
		return inTrial && (g.Site == "" || g.Site == site)
	case reachPart:
		return inTrial
	case reachTrial:
		return inTrial && g.Site == ""
	case reachAll:
		return everyTrial
	case reachPublic:
		return true
	}
	return false
}

// allows says whether the role may do this anywhere. A grant that could not
// have been made allows nothing.
func (g Grant) allows(action Action) bool {
	return matrix[g.Role][action] && (g.Trial != "" || g.Site == "")
}

// Extent is a set of trials or of sites, for filtering a list. The zero value
// is the empty set.
type Extent struct {
	All bool     // everything there is; then IDs is nil
	IDs []string // sorted, each once
}

// Has says whether an id is in the set.
func (e Extent) Has(id string) bool {
	if e.All {
		return true
	}
	_, ok := slices.BinarySearch(e.IDs, id)
	return ok
}

// Empty says that nothing is in the set.
func (e Extent) Empty() bool { return !e.All && len(e.IDs) == 0 }

// Trials is the set of trials in which the principal may do something, be it
// at one site only.
func (p *Principal) Trials(action Action) Extent {
	var ids []string
	for _, g := range p.grants() {
		if !g.allows(action) {
			continue
		}
		switch reaches[action] {
		case reachSite, reachPart:
		case reachTrial:
			if g.Site != "" {
				continue
			}
		case reachAll:
			if g.Trial != "" {
				continue
			}
		case reachPublic:
			return Extent{All: true}
		default:
			continue
		}
		if g.Trial == "" {
			return Extent{All: true}
		}
		ids = append(ids, g.Trial)
	}
	return extent(ids)
}

// Sites is the set of sites of a trial at which the principal may do
// something. An empty trial gives the empty set: sites are always of a trial.
func (p *Principal) Sites(action Action, trial string) Extent {
	var ids []string
	if trial == "" {
		return Extent{}
	}
	for _, g := range p.grants() {
		if !g.covers(action, trial, g.Site) {
			continue
		}
		if g.Site == "" || reaches[action] == reachPublic {
			return Extent{All: true}
		}
		ids = append(ids, g.Site)
	}
	return extent(ids)
}

func extent(ids []string) Extent {
	slices.Sort(ids)
	return Extent{IDs: slices.Compact(ids)}
}
