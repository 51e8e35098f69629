package store

import (
	"fmt"
	"testing"

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
