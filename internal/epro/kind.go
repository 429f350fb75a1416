package epro

import "strings"

// Kind names what a fact says, with the version of its body's shape. Once
// published, a kind@version keeps its decoder for ever (docs/format.md); a
// reader that meets an unknown one stops loudly and changes nothing.
type Kind struct {
	Name    string
	Version uint16
}

// The kinds this binary knows. A new one is added here, in docs/format.md and
// in the projector; see CONTRIBUTING.md.
var (
	KindReport = Kind{"report", 1}

	KindTrialCreated        = Kind{"trial.created", 1}
	KindTrialStatusChanged  = Kind{"trial.status-changed", 1}
	KindSiteCreated         = Kind{"site.created", 1}
	KindParticipantEnrolled = Kind{"participant.enrolled", 1}
	KindParticipantWithdrew = Kind{"participant.withdrawn", 1}
	KindTokensRevoked       = Kind{"participant.tokens-revoked", 1}
	KindInstrumentPublished = Kind{"instrument.published", 1}
	KindReportResolved      = Kind{"report.resolved", 1}

	KindStaffAdded       = Kind{"staff.added", 1}
	KindStaffRoleGranted = Kind{"staff.role-granted", 1}
	KindStaffRoleRevoked = Kind{"staff.role-revoked", 1}
	KindStaffRemoved     = Kind{"staff.removed", 1}

	KindKeyAdded       = Kind{"key.added", 1}
	KindKeyRetired     = Kind{"key.retired", 1}
	KindRulesActivated = Kind{"rules.activated", 1}
	KindEraOpened      = Kind{"era.opened", 1}
	KindErased         = Kind{"erased", 1}
)

// knownKinds is every kind a projector of this binary can apply.
var knownKinds = map[Kind]bool{
	KindReport: true, KindTrialCreated: true, KindTrialStatusChanged: true, KindSiteCreated: true,
	KindParticipantEnrolled: true, KindParticipantWithdrew: true, KindTokensRevoked: true,
	KindInstrumentPublished: true, KindReportResolved: true,
	KindStaffAdded: true, KindStaffRoleGranted: true, KindStaffRoleRevoked: true, KindStaffRemoved: true,
	KindKeyAdded: true, KindKeyRetired: true, KindRulesActivated: true, KindEraOpened: true, KindErased: true,
}

// Known says whether this binary can apply facts of kind k.
func (k Kind) Known() bool { return knownKinds[k] }

// String is name@version.
func (k Kind) String() string {
	return k.Name + "@" + uitoa(k.Version)
}

func uitoa(v uint16) string {
	var b [5]byte
	i := len(b)
	for {
		i--
		b[i] = byte('0' + v%10)
		if v /= 10; v == 0 {
			return string(b[i:])
		}
	}
}

// ActorType says who caused a fact.
type ActorType uint8

// The actors. The numbers are part of the byte format.
const (
	ActorParticipant ActorType = 1 // a participant on a device
	ActorStaff       ActorType = 2 // a staff member, by staff id
	ActorRelay       ActorType = 3 // a site's relay, which names participants
	ActorSystem      ActorType = 4 // Tidegate itself: keys, rules, eras, the operator's commands
)

// String is the actor type's word in the API and the audit.
func (t ActorType) String() string {
	switch t {
	case ActorParticipant:
		return "participant"
	case ActorStaff:
		return "staff"
	case ActorRelay:
		return "relay"
	case ActorSystem:
		return "system"
	}
	return "unknown"
}

// Actor is who caused a fact: the attribution that ALCOA+ asks for.
type Actor struct {
	Type ActorType
	ID   string // participant, staff or relay id; for the system the part that acted
	// Device is the participant's device. Of a relay it is the sites that its
	// token is limited to, in ascending order, joined by commas; "" for every
	// site. Of others it is "".
	Device string
}

// Covers says whether an actor may speak for participants of a site. Only a
// relay's token is limited, and then to the sites it names.
func (a *Actor) Covers(site string) bool {
	if a.Type != ActorRelay || a.Device == "" {
		return true
	}
	for s := range strings.SplitSeq(a.Device, ",") {
		if s == site {
			return true
		}
	}
	return false
}
