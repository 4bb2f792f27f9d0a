package simulate

import _ "embed" // the statements are files

//go:embed sql/prepare.sql
var prepareSQL string

//go:embed sql/conversations.sql
var conversationsSQL string

//go:embed sql/join.sql
var joinSQL string

//go:embed sql/die.sql
var dieSQL string

//go:embed sql/shift_members.sql
var shiftMembersSQL string

//go:embed sql/shift_ledger.sql
var shiftLedgerSQL string

//go:embed sql/living_deleted.sql
var livingDeletedSQL string

//go:embed sql/forget_evidence.sql
var forgetEvidenceSQL string

//go:embed sql/fill_ledger.sql
var fillLedgerSQL string

//go:embed sql/shadow.sql
var shadowSQL string

//go:embed sql/rows.sql
var rowsSQL string

//go:embed sql/watch.sql
var watchSQL string

//go:embed sql/refresh_members.sql
var refreshMembersSQL string

//go:embed sql/moved.sql
var movedSQL string

//go:embed sql/unwatch.sql
var unwatchSQL string

//go:embed sql/vacuum.sql
var vacuumSQL string

//go:embed sql/victims.sql
var victimsSQL string
