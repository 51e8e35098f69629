package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"manifold"
)

// MaxJobs is how many scheduled jobs an app may have.
const MaxJobs = 100

func jobKey(app, id string) string { return key("jobs", app, id) }

// AddJob makes a scheduled job of App, Command, Size and Schedule. Moments
// before now are not made up for.
func (s *Store) AddJob(ctx context.Context, job manifold.ScheduledJob) (manifold.ScheduledJob, error) {
	now := s.stamp()
	job.ID, job.CreatedAt, job.UpdatedAt, job.Due = uuid.NewString(), now, now, job.Schedule.Last(now)
	err := s.transact(ctx, job.App, func(t *tx) error {
		if _, err := t.app(job.App); err != nil {
			return err
		}
		all, err := s.Jobs(ctx, job.App)
		if err != nil {
			return err
		}
		if len(all) >= MaxJobs {
			return &manifold.InvalidError{What: "Scheduled jobs", Why: fmt.Sprintf("may be at most %d in number", MaxJobs)}
		}
		t.note(job.App, "Add scheduled job `%s`", job.Command)
		return t.insert(jobKey(job.App, job.ID), job)
	})
	return job, err
}

// Jobs lists an app's scheduled jobs, oldest first; of the empty name those of
// all apps.
func (s *Store) Jobs(ctx context.Context, app string) ([]manifold.ScheduledJob, error) {
	return ofApp(ctx, s.engine, "jobs", app, func(j manifold.ScheduledJob) (time.Time, string) { return j.CreatedAt, j.ID })
}

// Job finds a scheduled job of an app.
func (s *Store) Job(ctx context.Context, app, id string) (manifold.ScheduledJob, error) {
	return s.begin(ctx).job(app, id)
}

func (t *tx) job(app, id string) (manifold.ScheduledJob, error) {
	return find[manifold.ScheduledJob](t, jobKey(app, id), "scheduled job "+clip(id))
}

// UpdateJob changes Command, Size and Schedule. With another schedule, moments
// before now are not made up for. An error of change ends it.
func (s *Store) UpdateJob(ctx context.Context, app, id string, change func(*manifold.ScheduledJob) error) (manifold.ScheduledJob, error) {
	var job manifold.ScheduledJob
	err := s.transact(ctx, app, func(t *tx) (err error) {
		if job, err = t.job(app, id); err != nil {
			return err
		}
		was := job
		if err := change(&job); err != nil {
			return err
		}
		job.ID, job.App, job.CreatedAt, job.UpdatedAt = was.ID, was.App, was.CreatedAt, s.stamp()
		if job.Schedule != was.Schedule {
			job.Due = job.Schedule.Last(job.UpdatedAt)
		}
		t.note(app, "Update scheduled job `%s`", job.Command)
		return t.put(jobKey(app, id), job)
	})
	return job, err
}

// RemoveJob removes a scheduled job. Its dynos run on.
func (s *Store) RemoveJob(ctx context.Context, app, id string) error {
	return s.transact(ctx, app, func(t *tx) error {
		job, err := t.job(app, id)
		if err != nil {
			return err
		}
		t.note(app, "Remove scheduled job `%s`", job.Command)
		t.remove(jobKey(app, id))
		return nil
	})
}

// ClaimJob notes that a moment of a job is dealt with, in one step with the
// placement of its dyno, if it could be placed. ErrNotFound: the moment was
// claimed before, or the job has changed or is gone.
func (s *Store) ClaimJob(ctx context.Context, job manifold.ScheduledJob, due time.Time, p *Placement) error {
	return s.transact(ctx, job.App, func(t *tx) error {
		now, err := t.job(job.App, job.ID)
		if err == nil && (!now.Due.Equal(job.Due) || now.Schedule != job.Schedule || now.Command != job.Command) {
			err = fmt.Errorf("scheduled job %s that is due: %w", clip(job.ID), ErrNotFound)
		}
		if err != nil {
			return err
		}
		now.Due = due
		if p != nil {
			now.Dyno = p.Assignment.Dyno
			if err := s.putPlacement(t, *p); err != nil {
				return err
			}
		}
		return t.put(jobKey(job.App, job.ID), now)
	})
}
