package host

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"manifold/agent/door"
	"manifold/isolation"
)

func (t *tool) inspectCommand() *cobra.Command {
	cmd := t.onDyno("inspect DYNO", "Show everything about a dyno", t.inspect)
	cmd.Long = "Show everything about a dyno: what is desired of it (of config vars the names), its\nrecord, cgroups and limits, processes, mounts, addresses, user ids, seccomp, disk."
	return cmd
}

func (t *tool) inspect(ctx context.Context, dyno string) error {
	var list []door.Inspection
	if err := t.get(ctx, "/v1/dynos/"+escape(dyno), &list); err != nil {
		return err
	}
	if t.json {
		return t.print(list)
	}
	for _, i := range list {
		t.inspectOne(i)
	}
	return nil
}

func (t *tool) field(name, format string, args ...any) {
	t.say("  %-14s %s", name, tame(fmt.Sprintf(format, args...)))
}

func (t *tool) inspectOne(i door.Inspection) {
	a := i.Assignment
	t.say("%s", t.paint(bold, i.AppName+":"+i.Name)+" "+t.paint(stateColour(string(i.Step)), string(i.Step)))
	t.section("Desired", 1)
	t.field("assignment", "%s of app %s, made %s", a.ID, a.App, clock(a.CreatedAt))
	t.field("release", "v%d %s %s", a.Release, a.Description, a.Commit)
	t.field("command", "%s", a.Command)
	t.field("config vars", "%s", strings.Join(a.ConfigVars, " "))
	t.field("size", "%s: %s RAM, %s with swap, %d processes, %s disk", a.Size.Name, size(a.Size.Memory), size(a.Size.MemorySwap), a.Size.Processes, size(a.Size.Disk))
	t.field("life", "%s, grace %s, boot timeout %s, backoff %q", a.Kind, a.Grace, a.BootTimeout, a.Backoff)
	if a.HealthCheck != "" {
		t.field("health check", "GET %s", a.HealthCheck)
	}
	for _, l := range a.Layers {
		t.field("layer", "%s (%s)", l.Digest, size(l.Bytes))
	}
	t.section("Record", 1)
	t.field("run", "%s, begun %s, restarts %d", i.Run, clock(i.Began), i.Restarts)
	t.field("state", "%s since %s, crashes in a row %d", i.Step, clock(i.Since), i.Crashes)
	t.field("next", "cycle %s, next try %s", until(i.CycleAt, time.Now()), until(i.NextTry, time.Now()))
	if r := i.Record.Result; r != nil {
		t.field("last end", "%s, status %d, %s %s", r.Cause, r.Status, clock(r.At), r.Detail)
	}
	t.field("logs", "%s and %s", i.Logs.App, i.Logs.Heroku)
	if i.Use != nil {
		t.section("Use", 1)
		t.field("memory", "%s, of it swap %s; page cache %s", size(i.Use.Memory), size(i.Use.Swap), size(i.Use.Cache))
		t.field("cpu", "%s in all, %.1f %% of one core lately", i.Use.CPU.Round(time.Millisecond), i.Use.CPUPercent)
		t.field("pressure", "cpu %.1f %%, memory %.1f %%, io %.1f %%", i.Use.CPUPressure, i.Use.MemoryPressure, i.Use.IOPressure)
	}
	if i.Box != nil {
		t.inspectBox(*i.Box)
	}
	t.say("")
}

func (t *tool) inspectBox(b isolation.Inspection) {
	t.section("Box", 1)
	t.field("slot", "%d: user ids %d to %d", b.Slot, b.FirstUID, b.LastUID)
	t.field("network", "%s behind %s (%s)", b.Addr, b.Gateway, b.Link)
	t.field("listens", "%s", strings.Join(b.Listeners, " "))
	t.field("directory", "%s", b.Dir)
	t.field("disk", "%s of %s free, %d of %d inodes free", size(b.Disk.BytesFree), size(b.Disk.Bytes), b.Disk.InodesFree, b.Disk.Inodes)
	for _, c := range b.Cgroups {
		t.field("cgroup", "%s", c)
	}
	for _, name := range slices.Sorted(maps.Keys(b.Limits)) {
		t.field("limit", "%s %s", name, b.Limits[name])
	}
	t.section(fmt.Sprintf("Processes (PID 1 is %d on the host)", b.Init), 1)
	rows := [][]string{{"PID", "IN DYNO", "STATE", "THREADS", "RSS", "SWAP", "SECCOMP", "CAPS", "NO_NEW_PRIVS", "COMMAND"}}
	for _, p := range b.Processes {
		rows = append(rows, []string{
			fmt.Sprint(p.PID), fmt.Sprint(p.DynoPID), p.State, fmt.Sprint(p.Threads), size(p.RSS), size(p.Swap), p.Seccomp, p.CapEff,
			fmt.Sprint(p.NoNewPrivs), tame(p.Args),
		})
	}
	t.columns(t.out, rows, -1)
	t.section("Mounts", len(b.Mounts))
	for _, m := range b.Mounts {
		t.say("  %s", tame(m))
	}
}
