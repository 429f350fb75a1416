package auth

import "strings"

// Role is what a staff member is in a trial or at a site.
type Role string

// The roles. The words are part of facts and of the API.
const (
	RoleCoordinator  Role = "coordinator"
	RoleInvestigator Role = "investigator"
	RoleMonitor      Role = "monitor"
	RoleDataManager  Role = "data-manager"
	RoleSponsor      Role = "sponsor"
	RoleAdmin        Role = "admin"
	RoleUnblinded    Role = "unblinded"
)

// Roles lists every role, in the order of docs/roles.md.
func Roles() []Role {
	return []Role{RoleCoordinator, RoleInvestigator, RoleMonitor, RoleDataManager, RoleSponsor, RoleAdmin, RoleUnblinded}
}

// Valid says whether this program knows the role. An unknown one allows nothing.
func (r Role) Valid() bool { _, ok := matrix[r]; return ok }

// Action is something that staff may be allowed to do.
type Action string

// The actions.
const (
	ActionTrialList               Action = "trial.list"
	ActionTrialCreate             Action = "trial.create"
	ActionTrialStatus             Action = "trial.status" // change it
	ActionSiteList                Action = "site.list"
	ActionSiteCreate              Action = "site.create"
	ActionParticipantList         Action = "participant.list"
	ActionParticipantEnroll       Action = "participant.enroll"
	ActionParticipantWithdraw     Action = "participant.withdraw"
	ActionParticipantRevokeTokens Action = "participant.revoke-tokens"
	ActionInstrumentPublish       Action = "instrument.publish"
	ActionReportList              Action = "report.list"
	ActionReportExport            Action = "report.export"
	ActionQuarantineList          Action = "quarantine.list"
	ActionConflictList            Action = "conflict.list"
	ActionReportResolve           Action = "report.resolve"
	ActionBooksRead               Action = "books.read"
	ActionAuditRead               Action = "audit.read"
	ActionStaffManage             Action = "staff.manage"
	ActionKeysRead                Action = "keys.read"
)

// Actions lists every action, in the order of docs/roles.md.
func Actions() []Action {
	return []Action{
		ActionTrialList, ActionTrialCreate, ActionTrialStatus, ActionSiteList, ActionSiteCreate,
		ActionParticipantList, ActionParticipantEnroll, ActionParticipantWithdraw, ActionParticipantRevokeTokens,
		ActionInstrumentPublish, ActionReportList, ActionReportExport, ActionQuarantineList, ActionConflictList,
		ActionReportResolve, ActionBooksRead, ActionAuditRead, ActionStaffManage, ActionKeysRead,
	}
}

// RolesFor is which roles may do an action, for a sentence: "coordinator or
// investigator". Whether a grant is wide enough is another question.
func RolesFor(action Action) string {
	var list []string
	for _, r := range Roles() {
		if matrix[r][action] {
			list = append(list, string(r))
		}
	}
	if len(list) < 2 {
		return strings.Join(list, "")
	}
	return strings.Join(list[:len(list)-1], ", ") + " or " + list[len(list)-1]
}

// reach says how much of the world an action touches, and so which grants of
// an allowed role are wide enough for it.
type reach uint8

const (
	// reachSite: one site of one trial. A grant for that site is enough.
	reachSite reach = iota + 1
	// reachPart: the trial's name and state. A grant for any site of it is enough.
	reachPart
	// reachTrial: the whole trial. Only a grant for every site of it is enough.
	reachTrial
	// reachAll: no single trial. Only a grant for every trial is enough.
	reachAll
	// reachPublic: nothing confidential. Any grant is enough.
	reachPublic
)

// reaches is deny by default too: an action that is not here is forbidden.
var reaches = map[Action]reach{
	ActionTrialList:               reachPart,
	ActionTrialCreate:             reachAll,
	ActionTrialStatus:             reachTrial,
	ActionSiteList:                reachSite,
	ActionSiteCreate:              reachTrial,
	ActionParticipantList:         reachSite,
	ActionParticipantEnroll:       reachSite,
	ActionParticipantWithdraw:     reachSite,
	ActionParticipantRevokeTokens: reachSite,
	ActionInstrumentPublish:       reachTrial,
	ActionReportList:              reachSite,
	ActionReportExport:            reachSite,
	ActionQuarantineList:          reachSite,
	ActionConflictList:            reachSite,
	ActionReportResolve:           reachSite,
	ActionBooksRead:               reachTrial,
	ActionAuditRead:               reachSite,
	ActionStaffManage:             reachTrial, // with no trial named: the staff list itself, a grant for every trial
	ActionKeysRead:                reachPublic,
}

type actions map[Action]bool

func allow(list ...Action) actions {
	set := make(actions, len(list))
	for _, a := range list {
		set[a] = true
	}
	return set
}

// matrix is the whole of what roles may do: docs/roles.md says why, and a
// test holds the two together.
var matrix = map[Role]actions{
	RoleCoordinator: allow(ActionTrialList, ActionSiteList, ActionParticipantList, ActionParticipantEnroll, ActionParticipantWithdraw,
		ActionParticipantRevokeTokens, ActionReportList, ActionReportExport, ActionQuarantineList, ActionConflictList, ActionReportResolve,
		ActionBooksRead, ActionKeysRead),
	RoleInvestigator: allow(ActionTrialList, ActionSiteList, ActionParticipantList, ActionParticipantEnroll, ActionParticipantWithdraw,
		ActionParticipantRevokeTokens, ActionReportList, ActionReportExport, ActionQuarantineList, ActionConflictList, ActionReportResolve,
		ActionBooksRead, ActionAuditRead, ActionKeysRead),
	RoleMonitor: allow(ActionTrialList, ActionSiteList, ActionParticipantList, ActionReportList, ActionQuarantineList, ActionConflictList,
		ActionBooksRead, ActionAuditRead, ActionKeysRead),
	RoleDataManager: allow(ActionTrialList, ActionSiteList, ActionParticipantList, ActionInstrumentPublish, ActionReportList,
		ActionReportExport, ActionQuarantineList, ActionConflictList, ActionReportResolve, ActionBooksRead, ActionAuditRead, ActionKeysRead),
	RoleSponsor: allow(ActionTrialList, ActionTrialStatus, ActionSiteList, ActionParticipantList, ActionBooksRead, ActionKeysRead),
	RoleAdmin: allow(ActionTrialList, ActionTrialCreate, ActionTrialStatus, ActionSiteList, ActionSiteCreate, ActionBooksRead,
		ActionAuditRead, ActionStaffManage, ActionKeysRead),
	// What sets it apart from a monitor, the treatment arms, is not in the tables yet.
	RoleUnblinded: allow(ActionTrialList, ActionSiteList, ActionParticipantList, ActionReportList, ActionQuarantineList, ActionConflictList,
		ActionBooksRead, ActionAuditRead, ActionKeysRead),
}
