package store

import (
	"testing"
	"time"

	"manifold"
)

func TestJobsAreClaimedOnce(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	app := newApp(t, s, "app")
	now := time.Date(2024, 3, 1, 12, 3, 0, 0, time.UTC)
	s.now = func() time.Time { return now }
	job := must(s.AddJob(t.Context(), manifold.ScheduledJob{App: app.ID, Command: "true", Size: "Eco", Schedule: manifold.Schedule{Every: manifold.EveryTenMinutes}}))(t)
	if want := now.Add(-3 * time.Minute); !job.Due.Equal(want) {
		t.Errorf("a new job has dealt with %s, want %s", job.Due, want)
	}
	due := job.Schedule.Next(now)
	p := Placement{Assignment: manifold.Assignment{ID: "a1", App: app.ID, Dyno: "scheduler.1"}}
	must(0, s.ClaimJob(t.Context(), job, due, &p))(t)
	wantErr(t, "a second claim", s.ClaimJob(t.Context(), job, due, &p), ErrNotFound)
	if got := must(s.Placement(t.Context(), "a1"))(t); got.Assignment.Dyno != "scheduler.1" {
		t.Errorf("placed %+v", got)
	}
	job.Due = due
	ahead := due.AddDate(5, 0, 0) // and back, when the clock is put right
	must(0, s.ClaimJob(t.Context(), job, ahead, nil))(t)
	job.Due = ahead
	must(0, s.ClaimJob(t.Context(), job, due, nil))(t)
	s.Close()
	s = open(t, dir)
	if all := must(s.Jobs(t.Context(), ""))(t); len(all) != 1 || !all[0].Due.Equal(due) || all[0].Dyno != "scheduler.1" {
		t.Errorf("after a restart: %+v", all)
	}
	must(s.UpdateJob(t.Context(), app.ID, job.ID, func(j *manifold.ScheduledJob) error { j.Command = "false"; return nil }))(t)
	wantErr(t, "a claim of what it was before", s.ClaimJob(t.Context(), job, due.Add(time.Hour), nil), ErrNotFound)
	must(0, s.RemoveJob(t.Context(), app.ID, job.ID))(t)
	wantErr(t, "removed twice", s.RemoveJob(t.Context(), app.ID, job.ID), ErrNotFound)
	must(s.AddJob(t.Context(), job))(t)
	must(0, s.DeleteApp(t.Context(), app.ID))(t)
	if all := must(s.Jobs(t.Context(), ""))(t); len(all) != 0 {
		t.Errorf("a deleted app left %+v", all)
	}
}
