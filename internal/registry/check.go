package registry

import (
	"encoding/hex"
	"slices"
	"strconv"
	"unicode"
	"unicode/utf8"

	"github.com/tidegate/tidegate/internal/epro"
)

// Bounds of the texts in commands, in characters (Unicode code points).
const (
	MaxNameRunes   = 200
	MaxReasonRunes = 500
)

// The roles that a staff member can have.
const (
	RoleCoordinator  = "coordinator"
	RoleInvestigator = "investigator"
	RoleMonitor      = "monitor"
	RoleDataManager  = "data-manager"
	RoleSponsor      = "sponsor"
	RoleAdmin        = "admin"
	RoleUnblinded    = "unblinded"
)

// Roles are all roles, in the order in which screens show them.
var Roles = []string{RoleCoordinator, RoleInvestigator, RoleMonitor, RoleDataManager, RoleSponsor, RoleAdmin, RoleUnblinded}

// instruments are what this version can score and show: instrument id to versions.
var instruments = map[string][]uint32{epro.QoLInstrument: {epro.QoLVersion}}

// KnownInstrument says whether this version knows an instrument's version.
func KnownInstrument(id string, version uint32) bool {
	return slices.Contains(instruments[id], version)
}

// InstrumentName is id@version, as reports and tables name it.
func InstrumentName(id string, version uint32) string {
	return id + "@" + strconv.FormatUint(uint64(version), 10)
}

// checker gathers problems.
type checker struct{ list []epro.FieldProblem }

func (c *checker) add(field, problem string) {
	if problem != "" {
		c.list = append(c.list, epro.FieldProblem{Field: field, Problem: problem})
	}
}

// newID is what is wrong with the id of something new, or "". It is narrower
// than [epro.ValidID]: such an id needs no quoting in a file name, a URL or a
// spreadsheet.
func newID(s string) string {
	const problem = "must be 1 to 64 letters (A to Z, a to z), digits and . _ -"
	if s == "" || len(s) > epro.MaxIDLength {
		return problem
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return problem
		}
	}
	return ""
}

// knownID is what is wrong with an id that must exist already.
func knownID(s string) string {
	if err := epro.ValidID(s); err != nil {
		return err.Error()
	}
	return ""
}

func optionalID(s string) string {
	if s == "" {
		return ""
	}
	return knownID(s)
}

func nameProblem(s string) string {
	n := utf8.RuneCountInString(s)
	if !utf8.ValidString(s) || n < 1 || n > MaxNameRunes {
		return "must be 1 to 200 characters of text"
	}
	blank := true
	for _, r := range s {
		if unicode.IsControl(r) {
			return "must not hold control characters"
		}
		blank = blank && unicode.IsSpace(r)
	}
	if blank {
		return "must not be blank"
	}
	return ""
}

func reasonProblem(s string) string {
	n := utf8.RuneCountInString(s)
	if !utf8.ValidString(s) || n < 1 || n > MaxReasonRunes {
		return "must be 1 to 500 characters that say why"
	}
	for _, r := range s {
		if !unicode.IsSpace(r) {
			return ""
		}
	}
	return "must say why: it is blank"
}

func hexDigest(s string) string {
	if b, err := hex.DecodeString(s); err != nil || len(b) != 32 || s != hex.EncodeToString(b) {
		return "must be 64 lower-case hexadecimal digits"
	}
	return ""
}

// Check is what is wrong with a body, by every rule that needs no state; nil
// when nothing is. The body is the kind's struct of epro.
func Check(kind epro.Kind, body any) []epro.FieldProblem {
	var c checker
	switch b := body.(type) {
	case epro.TrialCreated:
		c.add("trialId", newID(b.TrialID))
		c.add("name", nameProblem(b.Name))
		if b.Status != epro.TrialPlanned && !b.Status.Open() {
			c.add("status", "must be Planned, Recruiting or Active for a new trial")
		}
	case epro.TrialStatusChanged:
		c.add("trialId", knownID(b.TrialID))
		if !b.Status.Valid() {
			c.add("status", "must be Planned, Recruiting, Active, Suspended, Completed or Terminated")
		}
		c.add("reason", reasonProblem(b.Reason))
	case epro.SiteCreated:
		c.add("trialId", knownID(b.TrialID))
		c.add("siteId", newID(b.SiteID))
		c.add("name", nameProblem(b.Name))
	case epro.ParticipantEnrolled:
		c.add("trialId", knownID(b.TrialID))
		c.add("siteId", knownID(b.SiteID))
		c.add("patientId", newID(b.PatientID))
	case epro.ParticipantWithdrawn:
		c.add("trialId", knownID(b.TrialID))
		c.add("patientId", knownID(b.PatientID))
		c.add("reason", reasonProblem(b.Reason))
	case epro.TokensRevoked:
		c.add("trialId", knownID(b.TrialID))
		c.add("patientId", knownID(b.PatientID))
		if b.MinEpoch == 0 {
			c.add("minEpoch", "must be 1 or more")
		}
		c.add("reason", reasonProblem(b.Reason))
	case epro.InstrumentPublished:
		c.add("trialId", knownID(b.TrialID))
		c.add("instrument", newID(b.Instrument))
		if b.Version == 0 {
			c.add("version", "must be 1 or more")
		}
	case epro.ReportResolved:
		checkResolved(&c, &b)
	case epro.StaffAdded, epro.StaffRole, epro.StaffRemoved:
		checkStaff(&c, b)
	case epro.RulesActivated:
		c.add("ruleSet", newID(b.RuleSet))
		c.add("tz", newID(b.TZ))
	case epro.EraOpened:
		c.add("reason", reasonProblem(b.Reason))
		if b.Era < 2 {
			c.add("era", "must be 2 or more")
		}
		c.add("anchorDigest", hexDigest(b.AnchorDigest))
	case epro.Erased:
		checkErased(&c, &b)
	}
	return c.list
}

func checkResolved(c *checker, b *epro.ReportResolved) {
	c.add("trialId", knownID(b.TrialID))
	c.add("patientId", knownID(b.PatientID))
	if b.ReportID.IsZero() {
		c.add("reportId", "must not be the nil UUID")
	}
	if b.Version < 1 {
		c.add("version", "must be 1 or more")
	}
	if !b.Resolution.Valid() {
		c.add("resolution", "must be accept or void")
	}
	c.add("reason", reasonProblem(b.Reason))
}

func checkStaff(c *checker, body any) {
	switch b := body.(type) {
	case epro.StaffAdded:
		c.add("staffId", newID(b.StaffID))
		c.add("name", nameProblem(b.Name))
	case epro.StaffRole:
		c.add("staffId", knownID(b.StaffID))
		if !slices.Contains(Roles, b.Role) {
			c.add("role", "must be coordinator, investigator, monitor, data-manager, sponsor, admin or unblinded")
		}
		c.add("trialId", optionalID(b.TrialID))
		c.add("siteId", optionalID(b.SiteID))
		if b.SiteID != "" && b.TrialID == "" {
			c.add("trialId", "is missing: a site belongs to a trial")
		}
	case epro.StaffRemoved:
		c.add("staffId", knownID(b.StaffID))
		c.add("reason", reasonProblem(b.Reason))
	}
}

func checkErased(c *checker, b *epro.Erased) {
	c.add("trialId", knownID(b.TrialID))
	c.add("patientId", knownID(b.PatientID))
	c.add("leaf", hexDigest(b.Leaf))
	if b.Version < 0 {
		c.add("version", "must be 0 or more")
	}
	switch b.Disposition {
	case epro.Recorded, epro.Conflict, epro.Quarantined, epro.Duplicate:
	default:
		c.add("disposition", "must be recorded, duplicate, conflict or quarantined")
	}
	if (b.Disposition == epro.Quarantined) != (len(b.Reasons) > 0) {
		c.add("reasons", "belong to a quarantined report, and to no other")
	}
	if (b.Disposition == epro.Duplicate) != (b.Version == 0) {
		c.add("version", "is 0 for a duplicate, and for no other")
	}
	c.add("reason", reasonProblem(b.Reason))
}
