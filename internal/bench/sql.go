package bench

import _ "embed" // the statements are files

//go:embed sql/seed.sql
var seedSQL string

//go:embed sql/living.sql
var livingSQL string

//go:embed sql/auth_service.sql
var authServiceSQL string

//go:embed sql/expected.sql
var expectedSQL string

//go:embed sql/survivors.sql
var survivorsSQL string

//go:embed sql/evidence.sql
var evidenceSQL string

//go:embed sql/count_members.sql
var countMembersSQL string

//go:embed sql/triggers_off.sql
var triggersOffSQL string

//go:embed sql/row_users.sql
var rowUsersSQL string

//go:embed sql/row_delete.sql
var rowDeleteSQL string

//go:embed sql/floor_users.sql
var floorUsersSQL string

//go:embed sql/floor_delete.sql
var floorDeleteSQL string

//go:embed sql/fdw_users.sql
var fdwUsersSQL string

//go:embed sql/fdw_delete.sql
var fdwDeleteSQL string

//go:embed sql/fdw_open_run.sql
var fdwOpenRunSQL string

//go:embed sql/watch.sql
var watchSQL string

//go:embed sql/neighbour_join.sql
var neighbourJoinSQL string

//go:embed sql/neighbour_leave.sql
var neighbourLeaveSQL string

//go:embed sql/neighbour_list.sql
var neighbourListSQL string
