package store

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sync/errgroup"

	"manifold"
)

// config is of a usual size: 20 vars, about 1 KB.
func config() map[string]string {
	vars := map[string]string{}
	for i := range 20 {
		vars[fmt.Sprintf("VARIABLE_%d", i)] = "postgres://user:password@host.example/db"
	}
	return vars
}

func benchApp(b *testing.B, releases int) (*Store, string) {
	s := open(b, b.TempDir())
	app := newApp(b, s, "bench")
	for range releases {
		must(s.AddRelease(b.Context(), app.ID, ada, func(r *manifold.Release) error {
			r.Config = config()
			r.Config["ID"] = r.ID
			return nil
		}))(b)
	}
	return s, app.ID
}

// BenchmarkAddRelease is one durable release and reading it back.
func BenchmarkAddRelease(b *testing.B) {
	s, app := benchApp(b, 1)
	for b.Loop() {
		r := must(s.AddRelease(b.Context(), app, ada, func(r *manifold.Release) error { r.Config["N"] = r.ID; return nil }))(b)
		if must(s.CurrentRelease(b.Context(), app))(b).ID != r.ID {
			b.Fatal("read back another release")
		}
	}
}

func BenchmarkCurrentRelease(b *testing.B) {
	s, app := benchApp(b, 1)
	for b.Loop() {
		must(s.CurrentRelease(b.Context(), app))(b)
	}
}

// BenchmarkReleases500 lists releases each of which changed the config vars.
func BenchmarkReleases500(b *testing.B) {
	s, app := benchApp(b, 498)
	for b.Loop() {
		if n := len(must(s.Releases(b.Context(), app))(b)); n != 500 {
			b.Fatal(n)
		}
	}
}

// BenchmarkDeploys500 lists releases that changed the slug only.
func BenchmarkDeploys500(b *testing.B) {
	s, app := benchApp(b, 1)
	for range 497 {
		must(s.Deploy(b.Context(), app, manifold.Slug{}, "Deploy", ada))(b)
	}
	for b.Loop() {
		if n := len(must(s.Releases(b.Context(), app))(b)); n != 500 {
			b.Fatal(n)
		}
	}
}

func BenchmarkAuthenticate(b *testing.B) {
	s := open(b, b.TempDir())
	token := must(s.Bootstrap(b.Context(), ada.Email))(b)
	for b.Loop() {
		mustAuthenticate(b, s, token)
	}
}

func BenchmarkReopen(b *testing.B) {
	dir := b.TempDir()
	for b.Loop() {
		s := open(b, dir)
		s.Close()
	}
}

// BenchmarkThousandApps is what 1,000 apps with 50 releases each take on disk,
// every release with config vars of a usual size and an entry of the audit trail.
// Run it with -benchtime 1x.
func BenchmarkThousandApps(b *testing.B) {
	const apps, releases = 1000, 50
	for b.Loop() {
		dir := b.TempDir()
		s := open(b, dir)
		var group errgroup.Group
		group.SetLimit(64)
		for i := range apps {
			group.Go(func() error {
				app, err := s.CreateApp(b.Context(), manifold.App{Name: fmt.Sprintf("bench-%d", i), Stack: "cedar"}, ada)
				ctx := By(b.Context(), &Author{ID: ada.ID, Email: ada.Email, From: "127.0.0.1", Request: app.ID, Authorization: app.ID})
				for n := 2; n < releases && err == nil; n++ {
					_, err = s.AddRelease(ctx, app.ID, ada, func(r *manifold.Release) error {
						r.Config, r.Description = config(), "Set VARIABLE config vars"
						r.Config["ID"] = r.ID
						return nil
					})
				}
				return err
			})
		}
		if err := group.Wait(); err != nil {
			b.Fatal(err)
		}
		db, err := os.Stat(filepath.Join(dir, "etcd", "member", "snap", "db"))
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(db.Size())/1e6, "MB")
		s.Close()
	}
}
