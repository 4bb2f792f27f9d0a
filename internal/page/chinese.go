package page

// chinese has each English text of the templates and of verdicts in Chinese, in the
// words of docs/runbook.zh-CN.md. Arguments keep their order unless they are numbered.
func chinese() map[string]string {
	return map[string]string{
		// States, phases and kinds, as the database has them.
		"healthy": "正常", "running": "执行中", "paused": "已暂停", "new": "尚未执行", "late": "逾期", "refused": "被拒绝", "failing": "异常",
		"alive-again": "用户重现", "succeeded": "成功", "incomplete": "未完成", "failed": "失败", "abandoned": "已放弃", "restore": "还原",
		"preflight": "预检", "verify": "核实", "judge": "判定", "sweep": "清理", "finish": "收尾", "clean": "清理",
		"verify and judge": "核实与判定", "sweep and finish": "清理与收尾",
		"day": "一天", "month": "一个月", "year": "一年",

		// Verdicts.
		"%d users due by %s": "%d 个用户将在 %s 前到期", "%d users due now": "%d 个用户已到期", "nobody is due": "没有用户到期",
		"%d users whose members were deleted are alive again": "%d 个用户的成员已被删除，如今又出现了",
		"does cron or serve run?":                             "cron 或 serve 是否在运行？", "see below": "详见下方",
		"first: orphan-cleaner check, then orphan-cleaner run --dry-run":                            "请先执行 orphan-cleaner check，再执行 orphan-cleaner run --dry-run",
		"first: orphan-cleaner check; if the clocks are right: orphan-cleaner migrate settle-clock": "请先执行 orphan-cleaner check；若时钟无误，再执行 orphan-cleaner migrate settle-clock",
		"the last run, %s, is in the future":                                                        "上一个 run（%s）的时间在未来",
		"last run %s deleted %d":                                                                    "上一个 run（%s）删除了 %d 条",
		"next %s":                                                                                   "下一个 run：%s",
		"no run begins since %s":                                                                    "自 %s 起不再开始新的 run",
		"no run was made yet":                                                                       "还没有执行过",
		"run %s since %s, in %s":                                                                    "run %s 自 %s 起执行，当前阶段：%s",
		"run %s was refused by %s":                                                                  "run %s 被 %s 拒绝",
		"sweeps wait until %s":                                                                      "清理要等到 %s",
		"the last run was %s, the next one was due %s":                                              "上一个 run 于 %s 执行，下一个本应在 %s 开始",
		"the last run, %s, is %s":                                                                   "上一个 run（%s）的状态是%s",

		// Every page.
		"Skip to the content": "跳到正文", "Language": "语言", "This page only reads.": "本页只读。",
		"Cannot be read": "无法读取", "Where you can log in to the database:": "在能登录数据库的地方执行：",
		"there is no run of this number": "没有此编号的 run",

		// Charts.
		"%s: from %s to %s, at most %d": "%s：从 %s 到 %s，最多 %d", "no run": "没有 run", "As a table": "表格",
		"Range of the charts": "图表的时间范围", "Users checked by the last run of each": "每段最后一个 run 核实的用户", "Users missing in it": "其中缺失的用户",
		"Members deleted": "删除的成员", "Members restored": "还原的成员", "Runs refused": "被拒绝的 run", "Users checked": "核实的用户",
		"Runs refused, incomplete or failed": "被拒绝、未完成或失败的 run",

		// Tables.
		"Run": "Run", "Runs": "Run", "Run %s": "Run %s", "State": "状态", "Began (UTC)": "开始（UTC）", "From (UTC)": "自（UTC）", "Since (UTC)": "自（UTC）",
		"Until (UTC)": "至（UTC）", "Took": "用时", "Checked": "核实", "Missing": "缺失", "Due": "到期", "Deleted": "删除", "Restored": "还原", "Refused": "拒绝",
		"Incomplete": "未完成", "Failed": "失败", "User": "用户", "Users": "用户", "Members": "成员", "Rows": "行数", "Reason": "原因", "Of": "对象", "Total": "合计",
		"Day": "日期", "Days": "按日", "Conversation": "会话", "Conversations": "会话", "What the server says": "服务器的说明",

		// The overview.
		"Recent runs": "最近的 run", "No run was made yet.": "还没有执行过。", "Candidates by due date": "候选用户，按到期日", "Retention ends": "保留期结束",
		"due now": "已到期", "No candidates.": "没有候选用户。", "Figures against their limits": "各项数值与阈值", "Breaker": "熔断规则", "Now": "当前", "Limit": "阈值", "off": "已关闭",
		"A figure over its limit refuses the next run, unless it is under the floor for small tables.": "数值超过阈值，下一个 run 就会被拒绝；小表另设最低数，未达到则不拒绝。",
		"Shown once a run has been judged.": "首个 run 判定之后才有数据。", "Blocked users": "被阻止的用户",
		"Something in the database refuses to delete their rows. Everybody else is cleaned, and each run tries them again.": "数据库拒绝删除这些用户的行（外键或触发器等）。其他用户照常清理，每个 run 都会重试。",
		"Holds": "保全", "Hold": "编号", "user": "用户", "conversation": "会话", "%d users of restore %s": "%[2]s 号还原的 %[1]d 个用户", "None in force.": "没有生效的保全。",
		"Coverage and surroundings": "覆盖情况及其他", "Every user checked since": "全部用户最近核实自", "some users have never been checked": "有用户从未核实过",
		"Checked in this cycle": "本轮已核实", "%d of %d users": "%d / %d 个用户", "%d unknown ones are checked again": "%d 个状态未知的用户将再次核实",
		"Window of sweeps": "清理时间窗", "open now": "现在开放", "closed until %s (UTC)": "关闭，%s（UTC）开放", "Approved": "已批准", "by %s until %s (UTC)": "由 %s 批准，有效期至 %s（UTC）",
		"Events that wait for %s": "等待发送到 %s 的事件", "Read": "读取时间",
		"Paused": "已暂停", "By %s since %s (UTC): %s": "由 %s 自 %s（UTC）起：%s",
		"Alive again: %d users whose members were deleted": "%d 个用户又出现了，其成员已被删除", "Restore their members:": "还原他们的成员：",

		"Targets, in the last run": "各目标表，最近一个 run", "Young": "未满保留期", "On hold": "保全中", "Changed": "已变更", "Blocked": "被阻止", "Deleted by all runs": "所有 run 共删除",

		// A refusal.
		"Run %s was refused, and no later run has succeeded": "Run %s 被拒绝，此后没有成功过", "Why": "原因",
		"Users whose members would be deleted": "将删除其成员的用户", "Their members, as of now": "其成员（当前）", "Of conversations": "所在会话",
		"Users newly missing, whose clocks would start": "首次缺失、将开始计时的用户", "The largest": "成员最多的用户", "Look again; this changes nothing:": "重新判定一次（不做任何改动）：",
		"Approved by %s until %s (UTC); the next run uses it. Revoke it:": "已由 %s 批准，有效期至 %s（UTC），由下一个 run 使用。撤回：",
		"If the run was right, admit these users, and no others, once:":   "如果数字属实，放行这些用户（仅限这些人、仅此一次）：",
		"It cannot be approved: correct what %s doubts.":                  "不能批准：请先解决 %s 所怀疑的问题。",
		"What its approval would admit":                                   "批准后会放行的内容",

		// A run.
		"a restore": "还原", "Phases": "阶段", "Phase": "阶段", "Last step": "最后一步", "Was due": "应开始于", "Last sign of life": "最后活动", "Runner": "执行者",
		"By the approval of": "依据的批准", "Slowest batch": "最慢一批", "Figures": "数值", "Figure": "项目", "Number": "数量",
		"Users missing": "缺失的用户", "Users unknown": "状态未知的用户", "Users newly missing": "首次缺失的用户", "Users returned": "重新出现的用户", "Clocks restarted": "重新计时",
		"Candidates": "候选用户", "Users due": "到期的用户", "Users blocked": "被阻止的用户", "Members due": "到期的成员", "Members kept: on hold": "保留的成员：保全",
		"Members kept: young": "保留的成员：未满保留期", "Members kept: changed since": "保留的成员：此后有变化", "Members kept: blocked": "保留的成员：被阻止", "Batches": "批次",
		"What it restored": "还原的内容", "Of users": "涉及用户", "Still to be restored": "尚待还原", "Reverted": "已撤回",
		"To undo it, look first; this changes nothing:": "如要撤回，先预览（不做任何改动）：", "Conversations that lost the most members": "失去成员最多的会话",
		"Restores of what it deleted": "对其删除内容的还原", "Restore": "还原", "There is none.": "没有。",
		"To see what could be restored; this changes nothing:": "查看可以还原的内容（不做任何改动）：",
		"Settings in force": "生效的设置", "Setting": "设置", "Value": "值", "All runs": "全部 run",

		"Targets": "目标表", "Target": "目标表", "Rows deleted": "删除的行", "Rows restored": "还原的行",

		// The report.
		"Report": "报告", "Runs that began from %s until %s, UTC": "%s 至 %s（UTC）之间开始的 run", "refused: %d, incomplete: %d, failed: %d": "被拒绝 %d，未完成 %d，失败 %d",
		"in %d batches": "（%d 批）", "Calls": "调用", "slowest": "最慢", "By day": "按日", "Conversations by their size before that": "按此前规模统计的会话",
		"Held and young: of the last run, since each finds them again. P50 and P99: at most 19 %% too high.": "保全与未满保留期：取最后一个 run 的数值，因为每个 run 都会再次遇到。P50 与 P99 最多偏高 19 %%。",
	}
}
