package store

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"manifold"
)

func TestDrains(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	app, other := newApp(t, s, "drained"), newApp(t, s, "other")
	changes := s.DrainChanges(t.Context())
	<-changes
	const password = "hunter2-of-the-drain"
	d := must(s.AddDrain(t.Context(), app.ID, "https://u:"+password+"@logs.example.com/in"))(t)
	<-changes
	must(s.AddDrain(t.Context(), other.ID, "syslog://logs.example.com:514"))(t)
	_, err := s.AddDrain(t.Context(), app.ID, d.URL)
	wantErr(t, "the same URL again", err, ErrTaken)
	var invalid *manifold.InvalidError
	if _, err := s.AddDrain(t.Context(), app.ID, "ftp://logs.example.com"); !errors.As(err, &invalid) {
		t.Errorf("a drain to ftp: %v", err)
	}
	_, err = s.AddDrain(t.Context(), "no-such-app", "http://h/")
	wantErr(t, "a drain of no app", err, ErrNotFound)

	s.Close()
	if file := fileWith(t, dir, password); file != "" {
		t.Errorf("%s holds a drain's password in clear", file)
	}
	s = open(t, dir)
	if all := must(s.Drains(t.Context(), ""))(t); len(all) != 2 {
		t.Errorf("drains after reopening: %v", all)
	}
	if of := must(s.Drains(t.Context(), app.ID))(t); len(of) != 1 || of[0] != d {
		t.Errorf("the app's drains: %v, want %v", of, d)
	}
	_, err = s.RemoveDrain(t.Context(), other.ID, d.Token)
	wantErr(t, "another app's drain", err, ErrNotFound)
	for _, name := range []func(manifold.Drain) string{
		func(d manifold.Drain) string { return d.ID },
		func(d manifold.Drain) string { return d.Token },
		func(d manifold.Drain) string { return d.URL },
	} {
		if got := must(s.RemoveDrain(t.Context(), app.ID, name(d)))(t); got != d {
			t.Errorf("removed %v by %s", got, name(d))
		}
		again := must(s.AddDrain(t.Context(), app.ID, d.URL))(t)
		if again.Token == d.Token {
			t.Error("a drain that was added again has its old token")
		}
		d = again
	}
	if err := s.DeleteApp(t.Context(), app.ID); err != nil {
		t.Fatal(err)
	}
	if all := must(s.Drains(t.Context(), ""))(t); len(all) != 1 || all[0].App != other.ID {
		t.Errorf("drains after their app: %v", all)
	}
}

func TestDrainsUnderCrowd(t *testing.T) {
	s := open(t, t.TempDir())
	app := newApp(t, s, "crowded")
	var all sync.WaitGroup
	for i := range 3 * manifold.MaxDrains {
		all.Go(func() {
			_, err := s.AddDrain(t.Context(), app.ID, fmt.Sprintf("http://h/%d", i))
			var invalid *manifold.InvalidError
			if err != nil && !errors.As(err, &invalid) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := len(must(s.Drains(t.Context(), app.ID))(t)); n != manifold.MaxDrains {
		t.Errorf("%d drains, want %d", n, manifold.MaxDrains)
	}
}
