package agent

import (
	"context"

	"github.com/coreos/go-systemd/v22/daemon"
)

// notifySystemd says that the agent is ready, and feeds the watchdog of its
// unit for as long as the loops make progress (sd_notify(3)). Without systemd
// it does nothing.
func (a *agent) notifySystemd(ctx context.Context) {
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		a.log.Warn("systemd could not be told that the agent is ready", "error", err)
	}
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		a.log.Warn("the watchdog's setting cannot be read", "error", err)
	}
	for every > 0 && sleep(ctx, every/3) {
		if err := a.Alive(ctx); err != nil {
			a.log.Error("the watchdog is not fed", "error", err)
			continue
		}
		if _, err := daemon.SdNotify(false, daemon.SdNotifyWatchdog); err != nil {
			a.log.Warn("the watchdog could not be fed", "error", err)
		}
	}
}
