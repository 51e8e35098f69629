package coordinator

import (
	"context"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// statusEvery is how old the status that systemd shows may be.
const statusEvery = 10 * time.Second

// notify tells systemd that we are ready and how we are, and feeds our unit's
// watchdog while the store answers, until ctx ends (sd_notify(3)). Without
// systemd it does nothing.
func (r *rooms) notify(ctx context.Context) {
	if !r.tell(daemon.SdNotifyReady + "\nSTATUS=serves") {
		return
	}
	pause := statusEvery
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		r.cfg.Log.Warn("the watchdog's setting cannot be read", "err", err)
	}
	if watchdog > 0 {
		pause = min(pause, watchdog/3)
	}
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		if n, err := r.hosts(ctx); err == nil {
			r.tell(fmt.Sprintf("%s\nSTATUS=serves; hosts that joined: %d", daemon.SdNotifyWatchdog, n))
		} else if ctx.Err() == nil {
			r.cfg.Log.Error("the watchdog is not fed: the store does not answer", "err", err)
			r.tell("STATUS=the store does not answer")
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			r.tell(daemon.SdNotifyStopping + "\nSTATUS=ends; dynos and routers go on")
			return
		}
	}
}

// tell is false where there is nobody to tell.
func (r *rooms) tell(state string) bool {
	sent, err := daemon.SdNotify(false, state)
	if err != nil {
		r.cfg.Log.Warn("systemd could not be told how we are", "err", err)
	}
	return sent || err != nil
}

// hosts counts the hosts, soon or not at all: whether the store answers.
func (r *rooms) hosts(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	list, err := r.store.Hosts(ctx)
	return len(list), err
}
