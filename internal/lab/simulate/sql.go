package simulate

import _ "embed" // the statements are files

var (
	//go:embed sql/prepare.sql
	prepareSQL string
	//go:embed sql/conversations.sql
	conversationsSQL string
	//go:embed sql/join.sql
	joinSQL string
	//go:embed sql/die.sql
	dieSQL string
	//go:embed sql/shift_members.sql
	shiftMembersSQL string
	//go:embed sql/shift_ledger.sql
	shiftLedgerSQL string
	//go:embed sql/living_deleted.sql
	livingDeletedSQL string
	//go:embed sql/forget_evidence.sql
	forgetEvidenceSQL string
	//go:embed sql/fill_ledger.sql
	fillLedgerSQL string
	//go:embed sql/shadow.sql
	shadowSQL string
	//go:embed sql/rows.sql
	rowsSQL string
	//go:embed sql/watch.sql
	watchSQL string
	//go:embed sql/refresh_members.sql
	refreshMembersSQL string
	//go:embed sql/moved.sql
	movedSQL string
	//go:embed sql/unwatch.sql
	unwatchSQL string
	//go:embed sql/vacuum.sql
	vacuumSQL string
	//go:embed sql/victims.sql
	victimsSQL string
)
