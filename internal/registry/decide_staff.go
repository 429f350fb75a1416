package registry

import (
	"cmp"
	"slices"

	"github.com/tidegate/tidegate/internal/epro"
	"github.com/tidegate/tidegate/internal/store"
)

func (d *decision) staffAdded(b epro.StaffAdded) Change {
	c := Change{Staff: &store.Staff{ID: b.StaffID, Name: b.Name, Version: 1}, Version: 1, Summary: "staff added: " + b.StaffID}
	if s, err := d.look.Staff(b.StaffID); !d.fail(err) {
		if s.Removed {
			d.reject(CodeExists, "Staff id %s was removed and is never given out again.", b.StaffID)
		}
		d.reject(CodeExists, "Staff id %s exists already.", b.StaffID)
	}
	return c
}

// staff looks up a staff member who must exist and not have been removed.
func (d *decision) staff(id string) store.Staff {
	s, err := d.look.Staff(id)
	if d.fail(err) {
		d.reject(CodeNotFound, "There is no staff member %s.", id)
	}
	if s.Removed {
		d.reject(CodeTransition, "Staff member %s was removed.", id)
	}
	return s
}

// scope is a grant in words.
func scope(g store.Grant) string {
	switch {
	case g.TrialID == "":
		return g.Role + " in every trial"
	case g.SiteID == "":
		return g.Role + " in trial " + g.TrialID
	}
	return g.Role + " at site " + g.SiteID + " of trial " + g.TrialID
}

func compareGrants(a, b store.Grant) int {
	return cmp.Or(cmp.Compare(a.Role, b.Role), cmp.Compare(a.TrialID, b.TrialID), cmp.Compare(a.SiteID, b.SiteID))
}

func (d *decision) staffRole(kind epro.Kind, b epro.StaffRole) Change {
	g := store.Grant{Role: b.Role, TrialID: b.TrialID, SiteID: b.SiteID}
	s := d.staff(b.StaffID)
	at := slices.Index(s.Grants, g)
	s.Grants = slices.Clone(s.Grants)
	c := Change{}
	if kind == epro.KindStaffRoleGranted {
		c.Summary = "role granted to " + b.StaffID + ": " + scope(g)
		if at >= 0 {
			d.reject(CodeExists, "Staff member %s is %s already.", b.StaffID, scope(g))
		}
		s.Grants = append(s.Grants, g)
		slices.SortFunc(s.Grants, compareGrants)
	} else {
		c.Summary = "role taken from " + b.StaffID + ": " + scope(g)
		if at < 0 {
			d.reject(CodeNotFound, "Staff member %s is not %s.", b.StaffID, scope(g))
		} else {
			s.Grants = slices.Delete(s.Grants, at, at+1)
		}
	}
	s.Version++
	c.Staff, c.Version = &s, s.Version
	return c
}

func (d *decision) staffRemoved(b epro.StaffRemoved) Change {
	c := Change{Summary: "staff removed: " + b.StaffID, Reason: b.Reason}
	s := d.staff(b.StaffID)
	s.Removed, s.Grants = true, nil
	s.Version++
	c.Staff, c.Version = &s, s.Version
	return c
}
