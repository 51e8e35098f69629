package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"manifold"
)

// statusEvery is how old the status that systemd shows may be.
const statusEvery = 5 * time.Second

// notifySystemd says that the agent is ready and how it is, and feeds the
// watchdog of its unit for as long as the loops make progress (sd_notify(3)),
// until ctx ends. Without systemd it does nothing.
func (a *agent) notifySystemd(ctx context.Context) {
	if !a.tellSystemd(daemon.SdNotifyReady, "STATUS="+a.status()) {
		return
	}
	pause := statusEvery
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		a.log.Warn("the watchdog's setting cannot be read", "error", err)
	}
	if watchdog > 0 {
		pause = min(pause, watchdog/3)
	}
	for sleep(ctx, pause) {
		if err := a.Alive(ctx); err != nil {
			a.log.Error("the watchdog is not fed", "error", err)
			a.tellSystemd("STATUS=" + err.Error())
			continue
		}
		a.tellSystemd(daemon.SdNotifyWatchdog, "STATUS="+a.status())
	}
	a.tellSystemd(daemon.SdNotifyStopping, "STATUS=ends; dynos run on")
}

// tellSystemd is false where there is nobody to tell.
func (a *agent) tellSystemd(states ...string) bool {
	sent, err := daemon.SdNotify(false, strings.Join(states, "\n"))
	if err != nil {
		a.log.Warn("systemd could not be told how the agent is", "error", err)
	}
	return sent || err != nil
}

// status is the agent in a line: "dynos: 1 crashed, 2 up; the coordinator answers".
func (a *agent) status() string {
	seen := a.observation()
	states := map[manifold.State]int{}
	for _, d := range seen.Dynos {
		states[d.State]++
	}
	var parts []string
	for state, n := range states {
		parts = append(parts, fmt.Sprintf("%d %s", n, state))
	}
	slices.SortFunc(parts, func(a, b string) int {
		return strings.Compare(a[strings.IndexByte(a, ' '):], b[strings.IndexByte(b, ' '):])
	})
	text := "no dynos"
	if len(parts) > 0 {
		text = "dynos: " + strings.Join(parts, ", ")
	}
	switch {
	case seen.Host == "":
		return text + "; this host has not joined a coordinator yet"
	case !a.heard.Load():
		return text + "; the coordinator does not answer, dynos run on"
	}
	return text + "; the coordinator answers"
}
