package platform

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"manifold"
	"manifold/coordinator/clock"
	"manifold/coordinator/store"
)

// Heroku's Scheduler is an add-on without a public API, so that this form is
// our own; docs/scheduler.md describes it.
func jobRoutes(a *api) routes {
	return routes{
		"GET /apps/{app}/scheduler-jobs":                    onApp(a.jobs),
		"POST /apps/{app}/scheduler-jobs":                   onApp(a.createJob),
		"GET /apps/{app}/scheduler-jobs/{job}":              onApp(a.job),
		"PATCH /apps/{app}/scheduler-jobs/{job}":            onApp(a.patchJob),
		"DELETE /apps/{app}/scheduler-jobs/{job}":           onApp(a.deleteJob),
		"POST /apps/{app}/scheduler-jobs/{job}/actions/run": onApp(a.runJob),
	}
}

func (a *api) jobs(c *call, app manifold.App) (answer, error) {
	all, err := a.Store.Jobs(c.Context(), app.ID)
	if err != nil {
		return answer{}, err
	}
	return list(c, all, func(j manifold.ScheduledJob) any { return jobObject(app, j) },
		key[manifold.ScheduledJob]{name: "id", of: func(j manifold.ScheduledJob) string { return j.ID }})
}

// jobWish is what a job may be given: all of it when it is made, any of it
// when it is changed.
type jobWish struct{ Command, Every, At, Size *string }

// apply checks the wish and fulfils it.
func (w jobWish) apply(job *manifold.ScheduledJob) error {
	set(&job.Command, w.Command)
	set(&job.Size, w.Size)
	if job.Command = strings.TrimSpace(job.Command); job.Command == "" || len(job.Command) > manifold.MaxCommand || strings.ContainsAny(job.Command, "\x00\n\r") {
		return invalidParams(fmt.Sprintf("Command must be one line of at most %d KB.", manifold.MaxCommand>>10))
	}
	size, err := manifold.ParseSize(job.Size)
	if err != nil {
		return err
	}
	job.Size = size.Name
	if w.Every == nil && w.At == nil && job.Schedule.Every != "" {
		return nil
	}
	every, at := job.Schedule.Every, job.Schedule.At()
	if w.Every != nil {
		every, at = *w.Every, ""
	}
	set(&at, w.At)
	job.Schedule, err = manifold.ParseSchedule(every, at)
	return err
}

func (a *api) createJob(c *call, app manifold.App) (answer, error) {
	var in jobWish
	if err := c.body(&in); err != nil {
		return answer{}, err
	}
	job := manifold.ScheduledJob{App: app.ID, Size: manifold.DefaultSize}
	if err := in.apply(&job); err != nil {
		return answer{}, err
	}
	job, err := a.Store.AddJob(c.Context(), job)
	if err != nil {
		return answer{}, err
	}
	return created(jobObject(app, job))
}

func (a *api) findJob(c *call, app manifold.App) (manifold.ScheduledJob, error) {
	id := c.PathValue("job")
	job, err := manifold.ScheduledJob{}, store.ErrNotFound
	if uuid.Validate(id) == nil {
		job, err = a.Store.Job(c.Context(), app.ID, id)
	}
	if errors.Is(err, store.ErrNotFound) {
		err = notFound("scheduler-job", fmt.Sprintf("%s has no scheduled job %q. See which it has with: manifold scheduler list -a %s", app.Name, clip(id), app.Name))
	}
	return job, err
}

func (a *api) job(c *call, app manifold.App) (answer, error) {
	job, err := a.findJob(c, app)
	if err != nil {
		return answer{}, err
	}
	return ok(jobObject(app, job))
}

func (a *api) patchJob(c *call, app manifold.App) (answer, error) {
	var in jobWish
	if err := c.body(&in); err != nil {
		return answer{}, err
	}
	job, err := a.findJob(c, app)
	if err != nil {
		return answer{}, err
	}
	job, err = a.Store.UpdateJob(c.Context(), app.ID, job.ID, in.apply)
	if err != nil {
		return answer{}, err
	}
	return ok(jobObject(app, job))
}

func (a *api) deleteJob(c *call, app manifold.App) (answer, error) {
	job, err := a.findJob(c, app)
	if err == nil {
		err = a.Store.RemoveJob(c.Context(), app.ID, job.ID)
	}
	if err != nil {
		return answer{}, err
	}
	return ok(jobObject(app, job))
}

// runJob runs a job now, besides its schedule, and shows its dyno.
func (a *api) runJob(c *call, app manifold.App) (answer, error) {
	job, err := a.findJob(c, app)
	if err != nil {
		return answer{}, err
	}
	o, err := clock.OneOff(job)
	if err != nil {
		return answer{}, err
	}
	d, _, err := a.Dynos.Start(c.Context(), o)
	if err != nil {
		return answer{}, oneOffFault(app, "", err)
	}
	c.say(app, "Run scheduled job `%s`", job.Command)
	return a.showOneOff(c, app, d, "")
}

func jobObject(app manifold.App, j manifold.ScheduledJob) object {
	var dyno any
	if j.Dyno != "" {
		dyno = object{"name": j.Dyno, "at": when(j.Due)}
	}
	return object{
		"id": j.ID, "app": appRef(app), "command": j.Command, "size": j.Size,
		"every": j.Schedule.Every, "at": j.Schedule.At(), "last_run": dyno, "next_run_at": when(j.Schedule.Next(time.Now())),
		"created_at": when(j.CreatedAt), "updated_at": when(j.UpdatedAt),
	}
}
