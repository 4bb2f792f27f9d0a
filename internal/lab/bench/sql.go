package bench

import _ "embed" // the statements are files

//go:embed sql/seed.sql
var seedSQL string

//go:embed sql/living.sql
var livingSQL string

//go:embed sql/users.sql
var usersSQL string

//go:embed sql/due.sql
var dueSQL string

//go:embed sql/expected.sql
var expectedSQL string

//go:embed sql/survivors.sql
var survivorsSQL string

//go:embed sql/evidence.sql
var evidenceSQL string

//go:embed sql/triggers_off.sql
var triggersOffSQL string

//go:embed sql/application_join.sql
var applicationJoinSQL string

//go:embed sql/application_leave.sql
var applicationLeaveSQL string

//go:embed sql/application_list.sql
var applicationListSQL string
