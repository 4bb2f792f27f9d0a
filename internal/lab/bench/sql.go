package bench

import _ "embed" // the statements are files

var (
	//go:embed sql/seed.sql
	seedSQL string
	//go:embed sql/living.sql
	livingSQL string
	//go:embed sql/users.sql
	usersSQL string
	//go:embed sql/due.sql
	dueSQL string
	//go:embed sql/expected.sql
	expectedSQL string
	//go:embed sql/survivors.sql
	survivorsSQL string
	//go:embed sql/evidence.sql
	evidenceSQL string
	//go:embed sql/dead.sql
	deadSQL string
	//go:embed sql/content_triggers_off.sql
	contentTriggersOffSQL string
	//go:embed sql/triggers_off.sql
	triggersOffSQL string
	//go:embed sql/application_join.sql
	applicationJoinSQL string
	//go:embed sql/application_leave.sql
	applicationLeaveSQL string
	//go:embed sql/application_list.sql
	applicationListSQL string
)
