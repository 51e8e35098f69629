// Package agent is the host daemon: it makes what the coordinator desires
// into running dynos and reports what it sees.
package agent

import "context"

// Run runs the agent until ctx ends (dynos go on) or it was torn down.
func Run(ctx context.Context, cfg Config) error {
	<-ctx.Done()
	return nil
}
