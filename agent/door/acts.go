package door

import (
	"context"
	"net/http"
)

// Acts is what the door has the agent do.
type Acts interface {
	// Teardown stops every dyno and removes all of ours from the host. It may
	// take a minute; now kills the dynos, also those of a teardown under way.
	Teardown(ctx context.Context, now bool) error
}

func (d *Door) acts(handle func(pattern string, h handler)) {
	handle("POST /v1/teardown", d.teardown)
}

// teardown goes on when its caller leaves: only the agent's end stops it.
func (d *Door) teardown(w http.ResponseWriter, r *http.Request) error {
	if err := d.agent.Teardown(d.ctx, r.URL.Query().Get("now") == "true"); err != nil {
		d.log.Error("teardown failed", "error", err)
		return refuse(http.StatusInternalServerError, "teardown_failed", "%v", err)
	}
	_ = ok(w, map[string]string{"status": "torn down"})
	select {
	case d.torn <- struct{}{}:
	default:
	}
	return nil
}
