package door

import (
	"context"
	"io"
	"net/http"
	"time"

	"manifold"
)

// Acts is what the door has the agent do. Dynos are named by assignment. An
// error that is a *Refusal is the caller's to mend.
type Acts interface {
	// Teardown stops every dyno and removes all of ours from the host. It may
	// take a minute; now kills the dynos, also those of a teardown under way.
	Teardown(ctx context.Context, now bool) error
	// Drain has this host emptied, or takes new dynos again. told says whether
	// the coordinator knows already.
	Drain(ctx context.Context, on bool) (told bool, err error)
	// Restart asks for another dyno in this one's place. inPlace says that it
	// is stopped and started here, since the coordinator is away.
	Restart(ctx context.Context, assignment string) (inPlace bool, err error)
	// Stop ends the dyno now; grace is from SIGTERM to SIGKILL, 0 its own.
	Stop(assignment string, grace time.Duration) error
	// Freeze stops its processes where they are until Thaw, at most for limit.
	Freeze(ctx context.Context, assignment string, limit time.Duration) (until time.Time, err error)
	Thaw(assignment string) error
	// Keep has what is left of the dyno's run stay when it ends.
	Keep(assignment string, on bool) error
	// Exec starts a process in the dyno. carry takes a client's line over
	// (manifold.AttachProtocol) and returns when it has ended.
	Exec(ctx context.Context, assignment string, e manifold.Exec) (carry func(line io.ReadWriteCloser), err error)
	// Autopsies lists what is kept of dead dynos, the newest first.
	Autopsies() ([]Autopsy, error)
	// DropAutopsy removes one; fs.ErrNotExist where there is none of that run.
	DropAutopsy(run string) error
}

func (d *Door) acts(handle func(pattern string, h handler)) {
	handle("POST /v1/teardown", d.teardown)
	handle("POST /v1/drain", d.drain)
	handle("POST /v1/undrain", d.undrain)
	handle("POST /v1/dynos/{dyno}/restart", d.restart)
	handle("POST /v1/dynos/{dyno}/stop", d.stop)
	handle("POST /v1/dynos/{dyno}/freeze", d.freeze)
	handle("POST /v1/dynos/{dyno}/thaw", d.thaw)
	handle("POST /v1/dynos/{dyno}/keep", d.keep)
	handle("POST /v1/dynos/{dyno}/exec", d.exec)
	handle("GET /v1/autopsies", d.autopsies)
	handle("DELETE /v1/autopsies/{run}", d.dropAutopsy)
}

// teardown goes on when its caller leaves: only the agent's end stops it.
func (d *Door) teardown(w http.ResponseWriter, r *http.Request) error {
	if err := d.agent.Teardown(d.ctx, r.URL.Query().Get("now") == "true"); err != nil {
		d.log.Error("teardown failed", "error", err)
		return refuse(http.StatusInternalServerError, "teardown_failed", "%v", err)
	}
	_ = ok(w, map[string]string{"status": "torn down"})
	_ = http.NewResponseController(w).Flush() // the door, once told, has no time for answers that are still to be sent
	select {
	case d.torn <- struct{}{}:
	default:
	}
	return nil
}
